//! One simulated cloud and one provider opened on it, through the front door and nothing else. Time is virtual. It must
//! never let a secret into an error unseen: every error that a case takes from [`Rig::error`] is looked through.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rekeyd::clock::Clock;
use rekeyd::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey, Region, Timestamp};
use rekeyd::provider::{Accepted, Api, Credentials, Effect, Error, Instance, Provider, Select, Settings, open};
use rekeyd::sim::{Direct, InstanceSpec, Machine, Power, Rule, VirtualClock, World};
use secrecy::ExposeSecret;

use crate::tap::Tap;

/// The tag that the cases select by.
pub const TAG: (&str, &str) = ("role", "web");

/// One way to a cloud.
#[derive(Clone, Copy, Debug)]
pub struct Implementation {
    pub kind: ProviderKind,
    pub api: Api,
    /// What goes well at the legacy endpoint, and what its gateway refuses, comes in the oldest shape.
    pub flat: bool,
}

impl Implementation {
    pub const fn of(kind: ProviderKind, api: Api) -> Self {
        Self { kind, api, flat: false }
    }
}

pub struct Rig {
    pub way: Implementation,
    pub kind: ProviderKind,
    pub clock: Arc<VirtualClock>,
    pub tap: Arc<Tap>,
    pub provider: Arc<dyn Provider>,
    world: Arc<Mutex<World>>,
    secrets: Mutex<Vec<String>>,
    expected: Mutex<BTreeSet<Rule>>,
    count: AtomicU32,
}

/// `at` and so many milliseconds more.
pub fn after(at: Timestamp, milliseconds: u64) -> Timestamp {
    at.checked_add(Duration::from_millis(milliseconds)).unwrap()
}

impl Rig {
    pub fn new(way: Implementation) -> Self {
        let Implementation { kind, api, flat } = way;
        let start: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let clock = Arc::new(VirtualClock::new(start));
        let mut world = World::new(7, start);
        world.faults.flat = if flat { 1.0 } else { 0.0 };
        let cloud = world.open_cloud(kind);
        assert_eq!(cloud, 0);
        // A real Lighthouse account holds 10 pairs, which would hide a second page.
        world.cloud_mut(cloud).key_pairs_max = 10_000;
        let account = world.cloud(cloud).clone();
        let world = Arc::new(Mutex::new(world));
        let tap = Arc::new(Tap::new(Direct::new(world.clone(), cloud, clock.clone()), world.clone(), clock.clone()));
        let credentials = Credentials {
            access_key_id: account.access_key_id.clone(),
            access_key_secret: account.access_key_secret.clone().into(),
            session_token: None,
        };
        let settings = settings(kind, api, &account.region, credentials);
        let provider = open(&settings, tap.clone(), clock.clone(), 1).unwrap();
        Self {
            way,
            kind,
            clock,
            tap,
            provider,
            world,
            secrets: Mutex::new(vec![account.access_key_id, account.access_key_secret]),
            expected: Mutex::default(),
            count: AtomicU32::new(0),
        }
    }

    /// Another client of the same account, whose credentials differ.
    pub fn client(&self, change: impl FnOnce(&mut Credentials)) -> Arc<dyn Provider> {
        let account = self.with(|world| world.cloud(0).clone());
        let mut credentials = Credentials {
            access_key_id: account.access_key_id,
            access_key_secret: account.access_key_secret.into(),
            session_token: None,
        };
        change(&mut credentials);
        let mut secrets = self.secrets.lock().unwrap();
        secrets.push(credentials.access_key_id.clone());
        secrets.push(credentials.access_key_secret.expose_secret().to_string());
        secrets.extend(credentials.session_token.as_ref().map(|token| token.expose_secret().to_string()));
        drop(secrets);
        let number = u64::from(self.count.fetch_add(1, Ordering::Relaxed));
        let settings = settings(self.kind, self.way.api, &account.region, credentials);
        open(&settings, self.tap.clone(), self.clock.clone(), 1000 + number).unwrap()
    }

    /// Another client of the same account, held to this many calls a second of one action.
    pub fn client_at(&self, action: &str, rate: u32) -> Arc<dyn Provider> {
        let account = self.with(|world| world.cloud(0).clone());
        let credentials = Credentials {
            access_key_id: account.access_key_id,
            access_key_secret: account.access_key_secret.into(),
            session_token: None,
        };
        let mut settings = settings(self.kind, self.way.api, &account.region, credentials);
        settings.rates.insert(action.to_string(), rate);
        let number = u64::from(self.count.fetch_add(1, Ordering::Relaxed));
        open(&settings, self.tap.clone(), self.clock.clone(), 1000 + number).unwrap()
    }

    pub fn is_tencent(&self) -> bool {
        matches!(self.kind, ProviderKind::TencentLighthouse | ProviderKind::TencentCvm)
    }

    pub fn is_legacy(&self) -> bool {
        self.way.api != Api::V3
    }

    /// Looks into the world, or meddles with it.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The case makes the client break this rule on purpose: the cloud's complaint is no fault of the client's.
    pub fn expects(&self, rule: Rule) {
        self.expected.lock().unwrap().insert(rule);
    }

    /// What the client did that a cloud refuses on principle, and that no case asked for.
    pub fn misdeeds(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap().clone();
        let own = |rule: &Rule| !expected.contains(rule);
        self.with(|world| world.violations().filter(|v| own(&v.rule)).map(|v| format!("{v:?}")).collect())
    }

    // ---- building

    pub fn add(&self, spec: InstanceSpec) -> InstanceId {
        InstanceId::new(self.with(|world| world.add_instance(0, spec)))
    }

    pub fn machine_of(&self, power: Power, keys: &[&KeyPairId]) -> InstanceId {
        let keys = keys.iter().map(|key| key.to_string()).collect();
        self.add(InstanceSpec { power, keys, tags: tags(&[TAG]), ..InstanceSpec::default() })
    }

    /// Machines in the power in which this cloud takes a bind without more ado: stopped.
    pub fn stopped(&self, count: usize) -> Vec<InstanceId> {
        (0..count).map(|_| self.machine_of(Power::Stopped, &[])).collect()
    }

    /// A pair of this name whose private half nobody has.
    pub fn pair(&self, name: &str) -> KeyPairId {
        KeyPairId::new(self.with(|world| world.add_strangers_pair(0, name)))
    }

    /// A public key that no cloud has seen.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::parse(&self.with(World::strangers_line)).unwrap()
    }

    /// A name that was never used, legal in every cloud.
    pub fn name(&self) -> KeyPairName {
        KeyPairName::new(format!("rksim_{:016}", self.count.fetch_add(1, Ordering::Relaxed)))
    }

    // ---- time

    /// A leave long enough for any single call.
    pub fn before(&self) -> Timestamp {
        after(self.clock.now(), 60_000)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets so many milliseconds pass.
    pub fn wait(&self, milliseconds: u64) {
        let now = after(self.now(), milliseconds);
        self.clock.advance_to(now);
        self.with(|world| world.advance(now));
    }

    /// Waits until whatever is under way has ended.
    pub fn settle(&self) {
        self.wait(10_000);
    }

    // ---- looking

    pub fn truth(&self, id: &InstanceId) -> Machine {
        self.with(|world| world.cloud(0).machine(id.as_str()).unwrap().clone())
    }

    /// The ids of the pairs that the cloud's record binds.
    pub fn bound(&self, id: &InstanceId) -> Vec<String> {
        self.truth(id).record_keys
    }

    pub async fn look(&self, id: &InstanceId) -> Instance {
        let found = self.provider.instances(&Select::Ids(vec![id.clone()])).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    /// The ids that a selection finds, sorted; each must come once.
    pub async fn ids(&self, select: &Select) -> Vec<InstanceId> {
        let found = self.provider.instances(select).await.unwrap();
        let mut ids: Vec<InstanceId> = found.into_iter().map(|instance| instance.id).collect();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "an instance came twice");
        ids
    }

    // ---- errors

    /// The error of a call that must not go well, after a look that it tells no secret.
    pub fn error<T: Debug>(&self, result: Result<T, Error>) -> Error {
        let error = result.expect_err("it went well");
        self.tells_no_secret(&error);
        error
    }

    /// The error of a call that must not go well and is known not to have been done.
    pub fn not_done<T: Debug>(&self, result: Result<T, Error>) -> Error {
        let error = self.error(result);
        assert_eq!(error.effect, Effect::NotDone, "{error:?}");
        error
    }

    pub fn tells_no_secret(&self, error: &Error) {
        let told = format!("{error} {error:?} {}", serde_json::to_string(error).unwrap());
        for secret in self.secrets.lock().unwrap().iter() {
            assert!(!told.contains(secret.as_str()), "{secret} stands in {told}");
        }
        for signature in self.tap.signatures() {
            assert!(!told.contains(&signature), "the signature {signature} stands in {told}");
        }
    }

    /// What the call said of this one instance: the call's own error where it fails as a whole, else the refusal.
    pub fn verdict_on(&self, id: &InstanceId, result: Result<Accepted, Error>) -> Error {
        let error = match result {
            Err(error) => error,
            Ok(accepted) => {
                let refused: Vec<&InstanceId> = accepted.refused.iter().map(|(id, _)| id).collect();
                assert_eq!(refused, [id], "exactly this one is refused");
                accepted.refused.into_iter().next().unwrap().1
            }
        };
        self.not_done::<()>(Err(error))
    }
}

fn settings(provider: ProviderKind, api: Api, region: &str, credentials: Credentials) -> Settings {
    let rates = Default::default();
    Settings { provider, api, endpoint: None, region: Region::new(region), credentials: credentials.into(), rates }
}

/// Tags as the simulator takes them.
pub fn tags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A selection by these tags.
pub fn by_tags(pairs: &[(&str, &str)]) -> Select {
    Select::Tags(tags(pairs).into_iter().collect())
}

pub fn sorted(ids: impl IntoIterator<Item = InstanceId>) -> Vec<InstanceId> {
    let mut ids: Vec<InstanceId> = ids.into_iter().collect();
    ids.sort();
    ids
}
