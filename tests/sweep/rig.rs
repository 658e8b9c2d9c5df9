//! One simulated fleet, or two in two clouds, and everything around them. The world, custody, journal and time outlive the engine, which may be
//! dropped at any call and made anew: there is no other recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rekeyd::clock::Clock;
use rekeyd::custody::Custodian;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{Fleet, begin, propose};
use rekeyd::engine::{Accounts, Engine, EngineError, NoProvider, Surroundings, Tools};
use rekeyd::model::{Amount, Duration, FleetName, HostKey, JournalId, Mark, ProviderKind, Region, Timestamp};
use rekeyd::net::Transport;
use rekeyd::provider::{Api, Credentials, Provider, Select, Settings, open};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{
    AddressFrom, Author, Event, HoldReason, Hooks, JumpHost, OldKey, Outcome, Place, Plan, Rollout, SshLogin, Verify,
    Windows,
};
use rekeyd::sim::{Direct, InstanceSpec, Os, Power, Promise, Rule, VirtualClock, World};
use rekeyd::ssh::{KeyPool, PooledKeyMaker};
use rekeyd::store::Journal;

use crate::deliver::{self, Shelf};
use crate::fuse::{Doors, Fuse, Fused, Side};
use crate::login::Guests;
use crate::roll::{self, Drains};

pub const TAG: (&str, &str) = ("role", "web");
/// Weather in which a batch that is refused for one instance is done to those before it, and nothing else goes wrong.
pub const HALF_DONE: &str = "halfdone=1";
/// Weather in which half of what CVM's legacy endpoint answers comes in its oldest shape, and nothing goes wrong.
pub const FLAT: &str = "flat=0.5";

/// What a fleet looks like and how it is rolled out.
#[derive(Clone)]
pub struct Scenario {
    pub provider: ProviderKind,
    /// By which API the clouds are spoken to.
    pub api: Api,
    /// A second fleet of the same looks, in a cloud of its own.
    pub second: Option<ProviderKind>,
    pub running: usize,
    pub stopped: usize,
    pub canary: u32,
    pub batch_max: u32,
    pub unavailable_max: u32,
    pub failures_max: u32,
    /// The cloud refuses to bind this one.
    pub refused: bool,
    pub seed: u64,
    pub rounds: usize,
    /// What goes wrong, in the simulator's grammar.
    pub faults: &'static str,
    /// Whether logins prove the key.
    pub by_login: bool,
    /// The key of the host before the machines, where there is one.
    pub jump: Option<PathBuf>,
    /// One account for all fleets, and so many of its machines down at once.
    pub account_max: Option<u32>,
    /// When the fleets may be disturbed.
    pub windows: Windows,
    /// Hooks around each batch, that drain and bring back.
    pub hooks: bool,
    /// The private half goes to a file, an `ssh_config` and a program once it is proven.
    pub deliver: bool,
}

impl Scenario {
    pub fn of(provider: ProviderKind) -> Self {
        Self {
            provider,
            api: Api::default(),
            second: None,
            running: 4,
            stopped: 1,
            canary: 1,
            batch_max: 3,
            unavailable_max: 2,
            failures_max: 1,
            refused: true,
            seed: 1,
            rounds: 2,
            faults: "",
            by_login: false,
            jump: None,
            account_max: None,
            windows: Windows::default(),
            hooks: false,
            deliver: false,
        }
    }

    fn verify(&self) -> Verify {
        let login = SshLogin {
            user: "root".to_string(),
            port: 22,
            address: AddressFrom::Private,
            old_key: OldKey::Refuse,
            connect_timeout: Duration::from_secs(10),
            jump: self.jump.clone().map(|key_file| JumpHost {
                host: "10.255.255.1".to_string(),
                port: 22,
                user: "jump".to_string(),
                key_file,
                host_key: HostKey {
                    fingerprint: serde_json::from_value("SHA256:jump".into()).unwrap(),
                    algorithm: "ssh-ed25519".to_string(),
                },
            }),
            deadline: Duration::from_secs(600),
        };
        if self.by_login { Verify::Ssh(login) } else { Verify::None }
    }
}

pub struct Rig {
    pub scenario: Scenario,
    pub world: Arc<Mutex<World>>,
    /// Another account of the same clouds, with nothing in it. (It takes the same keys, so that it answers at all.)
    other: Arc<Mutex<World>>,
    pub clock: Arc<VirtualClock>,
    pub custody: Arc<rekeyd::custody::Memory>,
    pub journal: Arc<rekeyd::store::Memory>,
    pub fuse: Arc<Fuse>,
    pub refused: BTreeSet<String>,
    keys: Arc<PooledKeyMaker>,
    pub drains: Arc<Drains>,
    pub shelf: Arc<Shelf>,
    accounts: Arc<Accounts>,
    promises: Vec<Arc<Promise>>,
    engines: u64,
}

/// How a whole run came out.
pub struct Report {
    pub calls: Vec<String>,
    pub problems: Vec<String>,
}

pub fn mark() -> Mark {
    Mark::try_from("sim".to_string()).unwrap()
}

impl Rig {
    pub fn new(scenario: Scenario, pool: &Arc<KeyPool>, blows: impl IntoIterator<Item = (usize, Side)>) -> Self {
        let start: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let mut world = World::new(scenario.seed, start);
        if !scenario.faults.is_empty() {
            world.faults = scenario.faults.parse().unwrap();
        }
        let mut other = World::new(scenario.seed, start);
        let mut refused = BTreeSet::new();
        let mut promises = Vec::new();
        for provider in [Some(scenario.provider), scenario.second].into_iter().flatten() {
            promises.push(Arc::new(furnish(&mut world, provider, &scenario, &mut refused)));
            other.open_cloud(provider);
        }
        let world = Arc::new(Mutex::new(world));
        let custody = Arc::new(rekeyd::custody::Memory::new());
        let fuse = Fuse::new(blows);
        let drains = Arc::new(Drains::new(fuse.clone()));
        let (cap, hooks) = (scenario.account_max, scenario.hooks.then(|| (drains.clone(), refused.clone())));
        let (asked_world, asked_custody, asked_promises) = (world.clone(), custody.clone(), promises.clone());
        fuse.asks(Arc::new(move || {
            let (world, custody) = (asked_world.lock().unwrap(), publics(&asked_custody));
            let mut broken: Vec<String> =
                asked_promises.iter().flat_map(|promise| promise.broken(&world, &custody)).collect();
            let down = roll::down(&world);
            if cap.is_some_and(|cap| down.len() > cap as usize) {
                broken.push(format!("{} of the account are down, {cap:?} may be", down.len()));
            }
            // Who was refused is brought back while it is still being started.
            let bare = |(drains, refused): &(Arc<Drains>, BTreeSet<String>)| {
                down.iter().filter(|id| !refused.contains(*id) && !drains.has(id)).cloned().collect::<Vec<_>>()
            };
            let bare = hooks.as_ref().map(bare).unwrap_or_default();
            broken.extend(bare.into_iter().map(|id| format!("{id} is down, and was not drained")));
            broken
        }));
        Self {
            scenario,
            world,
            other: Arc::new(Mutex::new(other)),
            clock: Arc::new(VirtualClock::new(start)),
            custody,
            journal: Arc::new(rekeyd::store::Memory::new()),
            fuse,
            refused,
            drains,
            shelf: Arc::default(),
            // A new process counts from the journals: see `forget_accounts`.
            accounts: accounts(cap),
            keys: Arc::new(PooledKeyMaker::new(pool.clone())),
            promises,
            engines: 0,
        }
    }

    /// The first fleet.
    pub fn fleet(&self) -> Fleet {
        self.fleet_of(0)
    }

    /// All fleets.
    pub fn fleets(&self) -> Vec<Fleet> {
        (0..self.promises.len()).map(|cloud| self.fleet_of(cloud)).collect()
    }

    fn fleet_of(&self, cloud: usize) -> Fleet {
        let world = self.world.lock().unwrap();
        let cloud_of = world.cloud(cloud);
        Fleet {
            name: FleetName::new(NAMES[cloud]),
            place: Place {
                account: if self.scenario.account_max.is_some() { ONE_ACCOUNT } else { NAMES[cloud] }.into(),
                provider: cloud_of.kind,
                endpoint: Some("http://127.0.0.1:1".to_string()),
                region: Region::new(cloud_of.region.clone()),
            },
            select: Select::Tags([(TAG.0.to_string(), TAG.1.to_string())].into()),
            key_bits: 2048,
            rollout: Rollout {
                canary: Amount::Count(self.scenario.canary),
                batch_max: Some(self.scenario.batch_max),
                unavailable_max: Amount::Count(self.scenario.unavailable_max),
                failures_max: Amount::Count(self.scenario.failures_max),
                growth: 4,
                failures_in_a_row: 3,
                soak: Duration::from_secs(30),
            },
            force_stop: false,
            allow: Default::default(),
            grace: Duration::from_secs(120),
            verify: self.scenario.verify(),
            windows: self.scenario.windows.clone(),
            deliver: if self.scenario.deliver { deliver::everywhere() } else { Vec::new() },
            hooks: if self.scenario.hooks { roll::hooks() } else { Hooks::default() },
        }
    }

    /// What one engine or scheduler works with: nothing in it outlives a crash but what is shared with the next one.
    pub fn tools(&mut self) -> Tools {
        let fuse = self.fuse.clone();
        self.tools_through(fuse)
    }

    /// The same, for somebody who only looks: no call of his is counted, or blows.
    pub fn tools_to_look(&mut self) -> Tools {
        self.tools_through(Fuse::new(None))
    }

    fn tools_through(&mut self, fuse: Arc<Fuse>) -> Tools {
        self.engines += 1;
        let seed = self.engines * 1000 + self.scenario.seed;
        let (world, other, clock) = (self.world.clone(), self.other.clone(), self.clock.clone());
        let (through, api) = (fuse.clone(), self.scenario.api);
        // One provider an engine and place, as in the daemon: a second one of the same seed would use its nonces again.
        let opened = Mutex::new(BTreeMap::<String, Result<Arc<dyn Provider>, String>>::new());
        let providers = move |place: &Place| {
            let open = || {
                let is_here = |cloud: &usize| world.lock().unwrap().cloud(*cloud).kind == place.provider;
                let cloud = match place.account.as_str() {
                    ONE_ACCOUNT => (0..NAMES.len()).find(is_here).unwrap(),
                    name => NAMES.iter().position(|one| *one == name).unwrap(),
                };
                let own = Arc::new(Direct::new(world.clone(), cloud, clock.clone()));
                let other = Arc::new(Direct::new(other.clone(), cloud, clock.clone()));
                let inner: Arc<dyn Transport> = Arc::new(Doors { fuse: through.clone(), own, other });
                let credentials = {
                    let world = world.lock().unwrap();
                    let cloud = world.cloud(cloud);
                    Credentials {
                        access_key_id: cloud.access_key_id.clone(),
                        access_key_secret: cloud.access_key_secret.clone().into(),
                        session_token: None,
                    }
                };
                let settings = Settings {
                    provider: place.provider,
                    endpoint: place.endpoint.clone(),
                    region: place.region.clone(),
                    credentials: credentials.into(),
                    rates: Default::default(),
                    api,
                };
                let transport = Arc::new(Fused { fuse: through.clone(), inner });
                open(&settings, transport, clock.clone(), seed).map_err(|error| error.to_string())
            };
            opened
                .lock()
                .unwrap()
                .entry(format!("{} {}", place.account, place.provider))
                .or_insert_with(open)
                .clone()
                .map_err(NoProvider::Gone)
        };
        let custody: Arc<dyn Custodian> = self.custody.clone();
        let journal: Arc<dyn Journal> = self.journal.clone();
        Tools {
            journal: Arc::new(Fused { fuse: fuse.clone(), inner: journal }),
            custody: Arc::new(Fused { fuse, inner: custody }),
            providers: Box::new(providers),
            keys: self.keys.clone(),
            probe: Arc::new(Guests(self.world.clone())),
            clock: self.clock.clone(),
            chance: Mutex::new(rand::rngs::StdRng::seed_from_u64(seed)),
            mark: mark(),
            author: Author::Engine(format!("run-{}", self.engines)),
            observers: Vec::new(),
            surroundings: Surroundings {
                accounts: self.accounts.clone(),
                hooks: if self.scenario.deliver { self.shelf.clone() } else { self.drains.clone() },
                files: self.shelf.clone(),
                credentials: None,
            },
        }
    }

    /// What was known of the accounts is lost with the process.
    pub fn forget_accounts(&mut self) {
        self.accounts = accounts(self.scenario.account_max);
    }

    /// A new engine over what is there: what a start of the process does.
    pub fn engine(&mut self) -> Engine {
        Engine::new(self.tools()).with_attention(Duration::from_secs(15))
    }

    pub async fn completed(&self) -> usize {
        let heads = self.journal.heads().await.unwrap().readable;
        let done = |head: &&rekeyd::store::Head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_some();
        heads.iter().filter(done).count()
    }

    /// What the `rotate` verb does: go on with an open rotation or begin one, then retire.
    pub async fn rotate(&self, engine: &mut Engine) -> Result<(), String> {
        self.rotate_only(engine).await?;
        self.retire(engine).await.map_err(|error| error.to_string())
    }

    /// The same, without the retirement.
    pub async fn rotate_only(&self, engine: &mut Engine) -> Result<(), String> {
        let fleet = self.fleet();
        let heads = engine.heads().await.map_err(|error| error.to_string())?.readable;
        let open = heads.iter().find(|head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none());
        let id = match open {
            Some(head) => head.id,
            None => {
                let proposal = propose(engine.tools(), &fleet, &[]).await.map_err(|error| error.to_string())?;
                begin(engine.tools(), &proposal).await.map_err(|error| error.to_string())?.id
            }
        };
        match engine.drive(id).await.map_err(|error| error.to_string())? {
            Reached::Ended(Outcome::Completed) => {}
            other => return Err(format!("the rotation reached {other:?}")),
        }
        Ok(())
    }

    pub async fn retire(&self, engine: &mut Engine) -> Result<(), EngineError> {
        engine.drive_retirements(&FleetName::new("web"), Duration::from_secs(600)).await.map(|_| ())
    }

    /// All rounds, started again whenever the fuse blows.
    pub async fn run(&mut self) -> Report {
        let mut problems = Vec::new();
        let deadline = later(self.clock.now(), Duration::from_secs(6 * 3600));
        'starts: for start in 0.. {
            if start > 20 || self.clock.now() > deadline {
                problems.push(format!("not done after {start} starts, at {}", self.clock.now()));
                break;
            }
            let mut engine = self.engine();
            let fuse = self.fuse.clone();
            let work = async {
                while self.completed().await < self.scenario.rounds {
                    self.rotate(&mut engine).await?;
                }
                self.retire(&mut engine).await.map_err(|error| error.to_string())
            };
            tokio::select! {
                biased;
                done = work => {
                    if let Err(problem) = done { problems.push(problem); }
                    break 'starts;
                }
                () = fuse.blown() => {}
            }
            // The process is away for a while.
            let away = later(self.clock.now(), Duration::from_secs(7));
            self.clock.advance_to(away);
        }
        problems.extend(self.fuse.broken());
        problems.extend(self.unkept().await);
        Report { calls: self.fuse.calls(), problems }
    }

    /// What is not as it must be at the end.
    pub async fn unkept(&self) -> Vec<String> {
        let mut unkept = Vec::new();
        let heads = self.journal.heads().await.unwrap().readable;
        let world = self.world.lock().unwrap();
        for promise in &self.promises {
            let fleet = FleetName::new(NAMES[promise.cloud]);
            let of_fleet = |head: &&rekeyd::store::Head| *head.plan.fleet() == fleet;
            let mut rotations = heads.iter().filter(of_fleet).filter(|head| matches!(head.plan, Plan::Rotate(_)));
            match rotations.next_back() {
                Some(newest) => unkept.extend(promise.unkept(&world, newest.plan.key_name().as_str(), &self.refused)),
                None => unkept.push(format!("no rotation of {fleet}")),
            }
        }
        // After a lost answer or in a late look a careful client too can meet the wrong state.
        let fair = matches!(self.scenario.faults, "" | HALF_DONE | FLAT);
        let excused = |rule| !fair && matches!(rule, Rule::State | Rule::Clock);
        for violation in world.violations().filter(|violation| !excused(violation.rule)) {
            unkept.push(format!("the client broke a rule: {violation:?}"));
        }
        unkept
    }

    /// Every entry of every journal, for failures.
    pub async fn story(&self) -> String {
        let mut story = String::new();
        for head in self.journal.heads().await.unwrap().readable {
            story += &format!("journal {} {}\n", head.id, head.plan.key_name());
            for entry in self.journal.read(head.id, 0).await.unwrap() {
                let event = serde_json::to_string(&entry.event).unwrap();
                story += &format!("  {:>3} {} {event}\n", entry.seq, entry.at);
            }
        }
        story
    }

    /// The fleet's open rotation.
    pub async fn open_rotation(&self) -> Option<JournalId> {
        let heads = self.journal.heads().await.unwrap().readable;
        let open = heads.iter().find(|head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none());
        open.map(|head| head.id)
    }

    /// Appends an operator's entry to the open rotation, as the CLI does.
    pub async fn operate(&self, event: Event) {
        let head = self.journal.head(self.open_rotation().await.unwrap()).await.unwrap();
        let by = Author::Operator("test".to_string());
        self.journal.append(head.id, head.seq, &[event], &by, self.clock.now()).await.unwrap();
    }

    pub fn operators_hold() -> HoldReason {
        HoldReason::Operator { note: "stop".to_string() }
    }

    /// Who ran at first and does not now.
    pub fn switched_off(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        let off = world.machines().filter(|(_, machine)| machine.first_power == Power::Running);
        off.filter(|(_, machine)| machine.power != Power::Running).map(|(_, machine)| machine.id.clone()).collect()
    }
}

/// The public halves of what custody holds.
fn publics(custody: &Arc<rekeyd::custody::Memory>) -> BTreeSet<String> {
    custody.publics().into_iter().map(|key| key.to_openssh()).collect()
}

fn accounts(cap: Option<u32>) -> Arc<Accounts> {
    Arc::new(Accounts::new(cap.map(|cap| (ONE_ACCOUNT.into(), cap)).into_iter().collect()))
}

/// The account of all fleets, where they share one.
const ONE_ACCOUNT: &str = "main";
/// Account and fleet of each cloud.
const NAMES: [&str; 2] = ["web", "db"];

/// A cloud with a fleet in it, and what the fleet is promised.
fn furnish(world: &mut World, provider: ProviderKind, scenario: &Scenario, refused: &mut BTreeSet<String>) -> Promise {
    let cloud = world.open_cloud(provider);
    let tags = vec![(TAG.0.to_string(), TAG.1.to_string())];
    let strangers = world.add_strangers_pair(cloud, "old_key");
    for number in 0..scenario.running {
        // Every other one hangs on a stranger's pair, the rest on a password.
        let keys = if number % 2 == 0 { vec![strangers.clone()] } else { Vec::new() };
        world.add_instance(cloud, InstanceSpec { tags: tags.clone(), keys, ..Default::default() });
    }
    for _ in 0..scenario.stopped {
        world.add_instance(cloud, InstanceSpec { tags: tags.clone(), power: Power::Stopped, ..Default::default() });
    }
    world.add_instance(cloud, InstanceSpec { tags: tags.clone(), os: Os::Windows, ..Default::default() });
    world.add_instance(cloud, InstanceSpec { keys: vec![strangers.clone()], ..Default::default() });
    if scenario.refused {
        let spec = InstanceSpec { tags, keys: vec![strangers], poisoned: true, ..Default::default() };
        refused.insert(world.add_instance(cloud, spec));
    }
    Promise {
        cloud,
        tag: (TAG.0.to_string(), TAG.1.to_string()),
        unavailable_max: scenario.unavailable_max as usize,
        canary: scenario.canary as usize,
        prefix: mark().prefix(),
        ..Default::default()
    }
}
