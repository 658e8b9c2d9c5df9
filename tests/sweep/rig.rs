//! One simulated fleet and everything around it. The world, custody, journal and time outlive the engine, which may be
//! dropped at any call and made anew: there is no other recovery.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use rand::SeedableRng;
use rekeyd::clock::Clock;
use rekeyd::custody::Custodian;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{Fleet, begin, propose};
use rekeyd::engine::{Engine, EngineError, Tools};
use rekeyd::model::{Amount, Duration, FleetName, JournalId, Mark, ProviderKind, Region, Timestamp};
use rekeyd::provider::http::transport::Transport;
use rekeyd::provider::{Credentials, Provider, Select, Settings, open};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Author, Event, HoldReason, Outcome, Place, Plan, Rollout};
use rekeyd::sim::{Direct, InstanceSpec, Os, Power, Promise, Rule, VirtualClock, World};
use rekeyd::ssh::{KeyPool, PooledKeyMaker};
use rekeyd::store::Journal;

use crate::fuse::{Fuse, Fused, Side};

pub const TAG: (&str, &str) = ("role", "web");

/// What a fleet looks like and how it is rolled out.
#[derive(Clone)]
pub struct Scenario {
    pub provider: ProviderKind,
    pub running: usize,
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
}

impl Scenario {
    pub fn of(provider: ProviderKind) -> Self {
        Self {
            provider,
            running: 4,
            canary: 1,
            batch_max: 3,
            unavailable_max: 2,
            failures_max: 1,
            refused: true,
            seed: 1,
            rounds: 2,
            faults: "",
        }
    }
}

pub struct Rig {
    pub scenario: Scenario,
    pub world: Arc<Mutex<World>>,
    pub clock: Arc<VirtualClock>,
    pub custody: Arc<rekeyd::custody::Memory>,
    pub journal: Arc<rekeyd::store::Memory>,
    pub fuse: Arc<Fuse>,
    pub refused: BTreeSet<String>,
    keys: Arc<PooledKeyMaker>,
    promise: Arc<Promise>,
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
        let cloud = world.open_cloud(scenario.provider);
        if !scenario.faults.is_empty() {
            world.faults = scenario.faults.parse().unwrap();
        }
        let tags = vec![(TAG.0.to_string(), TAG.1.to_string())];
        let strangers = world.add_strangers_pair(cloud, "old_key");
        for number in 0..scenario.running {
            // Every other one hangs on a stranger's pair, the rest on a password.
            let keys = if number % 2 == 0 { vec![strangers.clone()] } else { Vec::new() };
            world.add_instance(cloud, InstanceSpec { tags: tags.clone(), keys, ..Default::default() });
        }
        world.add_instance(cloud, InstanceSpec { tags: tags.clone(), power: Power::Stopped, ..Default::default() });
        world.add_instance(cloud, InstanceSpec { tags: tags.clone(), os: Os::Windows, ..Default::default() });
        world.add_instance(cloud, InstanceSpec { keys: vec![strangers.clone()], ..Default::default() });
        let mut refused = BTreeSet::new();
        if scenario.refused {
            let spec = InstanceSpec { tags, keys: vec![strangers], poisoned: true, ..Default::default() };
            refused.insert(world.add_instance(cloud, spec));
        }
        let promise = Promise {
            cloud,
            tag: (TAG.0.to_string(), TAG.1.to_string()),
            unavailable_max: scenario.unavailable_max as usize,
            canary: scenario.canary as usize,
            prefix: mark().prefix(),
            ..Default::default()
        };
        let promise = Arc::new(promise);
        let world = Arc::new(Mutex::new(world));
        let custody = Arc::new(rekeyd::custody::Memory::new());
        let fuse = Fuse::new(blows);
        let (asked_world, asked_custody, asked_promise) = (world.clone(), custody.clone(), promise.clone());
        fuse.asks(Arc::new(move || asked_promise.broken(&asked_world.lock().unwrap(), &publics(&asked_custody))));
        Self {
            scenario,
            world,
            clock: Arc::new(VirtualClock::new(start)),
            custody,
            journal: Arc::new(rekeyd::store::Memory::new()),
            fuse,
            refused,
            keys: Arc::new(PooledKeyMaker::new(pool.clone())),
            promise,
            engines: 0,
        }
    }

    pub fn fleet(&self) -> Fleet {
        let world = self.world.lock().unwrap();
        Fleet {
            name: FleetName::new("web"),
            place: Place {
                account: "acc".into(),
                provider: self.scenario.provider,
                endpoint: Some("http://127.0.0.1:1".to_string()),
                region: Region::new(world.cloud(0).region.clone()),
            },
            select: Select::Tags([(TAG.0.to_string(), TAG.1.to_string())].into()),
            key_bits: 2048,
            rollout: Rollout {
                canary: Amount::Count(self.scenario.canary),
                batch_max: Some(self.scenario.batch_max),
                unavailable_max: Amount::Count(self.scenario.unavailable_max),
                failures_max: Amount::Count(self.scenario.failures_max),
                soak: Duration::from_secs(30),
            },
            force_stop: false,
            grace: Duration::from_secs(120),
        }
    }

    /// A new engine over what is there: what a start of the process does.
    pub fn engine(&mut self) -> Engine {
        self.engines += 1;
        let cloud = self.world.lock().unwrap().cloud(0).clone();
        let direct: Arc<dyn Transport> = Arc::new(Direct::new(self.world.clone(), 0, self.clock.clone()));
        let transport = Arc::new(Fused { fuse: self.fuse.clone(), inner: direct });
        let clock = self.clock.clone();
        let seed = self.engines * 1000 + self.scenario.seed;
        // One provider an engine, as in the daemon: a second one of the same seed would use its nonces again.
        let opened: OnceLock<Result<Arc<dyn Provider>, String>> = OnceLock::new();
        let providers = move |place: &Place| {
            let settings = Settings {
                provider: place.provider,
                endpoint: place.endpoint.clone(),
                region: place.region.clone(),
                credentials: Credentials {
                    access_key_id: cloud.access_key_id.clone(),
                    access_key_secret: cloud.access_key_secret.clone().into(),
                    session_token: None,
                },
                rates: Default::default(),
            };
            let open = || open(&settings, transport.clone(), clock.clone(), seed).map_err(|error| error.to_string());
            opened.get_or_init(open).clone()
        };
        let custody: Arc<dyn Custodian> = self.custody.clone();
        let journal: Arc<dyn Journal> = self.journal.clone();
        Engine::new(Tools {
            journal: Arc::new(Fused { fuse: self.fuse.clone(), inner: journal }),
            custody: Arc::new(Fused { fuse: self.fuse.clone(), inner: custody }),
            providers: Box::new(providers),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            chance: Mutex::new(rand::rngs::StdRng::seed_from_u64(seed)),
            mark: mark(),
            author: Author::Engine(format!("run-{}", self.engines)),
            observers: Vec::new(),
        })
        .with_attention(Duration::from_secs(15))
    }

    pub async fn completed(&self) -> usize {
        let heads = self.journal.heads().await.unwrap().readable;
        let done = |head: &&rekeyd::store::Head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_some();
        heads.iter().filter(done).count()
    }

    /// What the `rotate` verb does: go on with an open rotation or begin one, then retire.
    pub async fn rotate(&self, engine: &mut Engine) -> Result<(), String> {
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
        self.retire(engine).await.map_err(|error| error.to_string())
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
        let newest = heads.iter().rev().find(|head| matches!(head.plan, Plan::Rotate(_)));
        let Some(newest) = newest else { return vec!["no rotation".to_string()] };
        let world = self.world.lock().unwrap();
        unkept.extend(self.promise.unkept(&world, newest.plan.key_name().as_str(), &self.refused));
        // After a lost answer or in a late look a careful client too can meet the wrong state.
        let excused = |rule| !self.scenario.faults.is_empty() && matches!(rule, Rule::State | Rule::Clock);
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
