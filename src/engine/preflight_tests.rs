//! Proposals over simulated clouds in this process: who is left out, from whom the canary is drawn, what keeps a rotation
//! from beginning.

use std::sync::{Arc, Mutex};

use rand::SeedableRng;

use super::super::planner::{Fleet, PlanError, Proposal, begin, propose};
use super::*;
use crate::model::{Amount, Duration, Fingerprint, Hazard, HostKey, Mark, Region};
use crate::provider::{self, Select};
use crate::rotation::preflight::{Level, Rule};
use crate::rotation::{AddressFrom, Author, OldKey, Place, Rollout, SshLogin};
use crate::sim::{Direct, InstanceSpec, VirtualClock, World};
use crate::ssh::{Guest, KeyPool, Memory, PooledKeyMaker};

/// Six running machines of one cloud, and what plans for them.
struct Rig {
    world: Arc<Mutex<World>>,
    tools: Tools,
    guests: Arc<Memory>,
    fleet: Fleet,
    ids: Vec<String>,
}

fn rig(kind: ProviderKind) -> Rig {
    let start = "2026-11-22T03:00:00Z".parse().unwrap();
    let clock = Arc::new(VirtualClock::new(start));
    let mut world = World::new(5, start);
    let cloud = world.open_cloud(kind);
    let mut ids: Vec<String> = (0..6).map(|_| world.add_instance(cloud, InstanceSpec::default())).collect();
    ids.sort();
    let account = world.cloud(cloud).clone();
    let world = Arc::new(Mutex::new(world));
    let transport = Arc::new(Direct::new(world.clone(), cloud, clock.clone()));
    let settings = provider::Settings {
        provider: kind,
        endpoint: Some("http://127.0.0.1:1".to_string()),
        region: Region::new(account.region.clone()),
        credentials: provider::Credentials {
            access_key_id: account.access_key_id,
            access_key_secret: account.access_key_secret.into(),
            session_token: None,
        }
        .into(),
        rates: BTreeMap::new(),
        api: Default::default(),
    };
    let opened = provider::open(&settings, transport, clock.clone(), 1).unwrap();
    let guests = Arc::new(Memory::new());
    let place = Place {
        account: "acc".into(),
        provider: kind,
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
    };
    let tools = Tools {
        journal: Arc::new(crate::store::Memory::new()),
        custody: Arc::new(crate::custody::Memory::new()),
        providers: Box::new(move |_| Ok(opened.clone())),
        keys: Arc::new(PooledKeyMaker::new(KeyPool::new(1))),
        probe: guests.clone(),
        clock,
        chance: Mutex::new(rand::rngs::StdRng::seed_from_u64(1)),
        mark: Mark::try_from("sim".to_string()).unwrap(),
        author: Author::Engine("run".to_string()),
        observers: Vec::new(),
        surroundings: Default::default(),
    };
    let fleet = Fleet {
        name: "web".into(),
        place,
        select: Select::All,
        key_bits: 2048,
        rollout: Rollout {
            canary: Amount::Count(1),
            batch_max: None,
            unavailable_max: Amount::Percent(100),
            failures_max: Amount::Count(0),
            growth: 4,
            failures_in_a_row: 3,
            soak: Duration::ZERO,
        },
        force_stop: false,
        allow: BTreeSet::new(),
        grace: Duration::ZERO,
        verify: Verify::None,
        windows: Default::default(),
        hooks: Default::default(),
        deliver: Vec::new(),
    };
    Rig { world, tools, guests, fleet, ids }
}

impl Rig {
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap())
    }

    async fn propose(&self) -> Proposal {
        propose(&self.tools, &self.fleet, &[]).await.unwrap()
    }

    fn proven_by_logins(&mut self) {
        self.fleet.verify = Verify::Ssh(SshLogin {
            user: "root".into(),
            port: 22,
            address: AddressFrom::Private,
            old_key: OldKey::Refuse,
            connect_timeout: Duration::from_secs(1),
            jump: None,
            deadline: Duration::from_secs(600),
        });
    }

    /// Lets a machine's sshd answer.
    fn answers(&self, id: &str) {
        let address = self.with(|world| world.cloud(0).machine(id).unwrap().private_address.clone());
        let fingerprint: Fingerprint = serde_json::from_value(format!("SHA256:{id}").into()).unwrap();
        let host_key = HostKey { fingerprint, algorithm: "ssh-ed25519".to_string() };
        self.guests.set(&address, 22, Guest::new(host_key));
    }
}

fn canary(proposal: &Proposal) -> Vec<&str> {
    let canary = proposal.instances.iter().filter(|one| one.part == Part::Batch(0));
    canary.map(|one| one.id.as_str()).collect()
}

fn level(proposal: &Proposal, rule: Rule) -> Option<Level> {
    proposal.findings.iter().find(|finding| finding.rule == rule).map(|finding| finding.level)
}

#[tokio::test]
async fn a_hazard_leaves_out_where_a_rotation_stops_and_is_taken_along_where_allowed() {
    for kind in ProviderKind::ALL {
        let mut rig = rig(kind);
        rig.with(|world| world.make_spot(0, &rig.ids[0]));
        let stops = matches!(kind, ProviderKind::TencentCvm | ProviderKind::BaiduBcc);
        let proposal = rig.propose().await;
        assert_eq!(canary(&proposal) == [rig.ids[0].as_str()], !stops, "{kind}");
        assert_eq!(level(&proposal, Rule::Hazards), stops.then_some(Level::Warning), "{kind}");
        rig.fleet.allow = [Hazard::Spot].into();
        let proposal = rig.propose().await;
        assert_eq!(canary(&proposal), [rig.ids[0].as_str()], "{kind}");
        begin(&rig.tools, &proposal).await.unwrap();
    }
}

#[tokio::test]
async fn the_canary_is_drawn_from_those_that_answer_and_nobody_proves_nothing() {
    for kind in ProviderKind::ALL {
        let mut rig = rig(kind);
        let proposal = rig.propose().await;
        assert_eq!(level(&proposal, Rule::Canary), None, "{kind}");
        // As they come in batches, zone beside zone.
        let order: Vec<String> = proposal.instances.iter().map(|planned| planned.id.to_string()).collect();
        rig.proven_by_logins();
        let proposal = rig.propose().await;
        assert!(proposal.forecast.canary_proves_nothing, "{kind}");
        assert_eq!(level(&proposal, Rule::Canary), Some(Level::Warning), "{kind}");
        // Four are asked for a canary of one: the fifth answers unheard.
        rig.answers(&order[4]);
        assert!(rig.propose().await.forecast.canary_proves_nothing, "{kind}");
        rig.answers(&order[2]);
        let proposal = rig.propose().await;
        assert_eq!(canary(&proposal), [order[2].as_str()], "{kind}");
        assert_eq!(level(&proposal, Rule::Canary), Some(Level::Ok), "{kind}");
        assert!(!proposal.forecast.canary_proves_nothing, "{kind}");
        assert_eq!(proposal.instances.len(), 6, "the others come after it");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_rotation_from_beginning_and_makes_nothing() {
    for kind in ProviderKind::ALL {
        let rig = rig(kind);
        rig.with(|world| world.cloud_mut(0).skew = jiff::SignedDuration::from_secs(-61));
        let proposal = rig.propose().await;
        assert_eq!(level(&proposal, Rule::Clock), Some(Level::Refusal), "{kind}");
        let Err(PlanError::Preflight { fleet, findings }) = begin(&rig.tools, &proposal).await else {
            panic!("{kind}: it began");
        };
        assert_eq!((fleet.as_str(), findings.len(), findings[0].rule), ("web", 1, Rule::Clock));
        assert!(rig.tools.journal.heads().await.unwrap().readable.is_empty(), "{kind}");
        rig.with(|world| world.cloud_mut(0).skew = jiff::SignedDuration::from_secs(-45));
        let proposal = rig.propose().await;
        assert_eq!(level(&proposal, Rule::Clock), Some(Level::Warning), "{kind}");
        begin(&rig.tools, &proposal).await.unwrap();
    }
}

#[tokio::test]
async fn a_listing_that_is_denied_names_what_allows_it() {
    for kind in ProviderKind::ALL {
        let rig = rig(kind);
        let looks = ["DescribeInstances", "ListInstances"].map(str::to_string);
        rig.with(|world| world.cloud_mut(0).denied = looks.into());
        match propose(&rig.tools, &rig.fleet, &[]).await {
            Err(PlanError::Denied { error, grant }) => assert!(grant.contains(&error.action), "{kind}: {grant}"),
            other => panic!("{kind}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_fleet_of_which_nobody_is_left_says_why() {
    let rig = rig(ProviderKind::TencentCvm);
    rig.with(|world| rig.ids.iter().for_each(|id| world.give_local_disk(0, id)));
    let error = propose(&rig.tools, &rig.fleet, &[]).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("all of them are excluded") && error.contains("local_disk: "), "{error}");
}

#[test]
fn fleets_of_one_place_are_counted_each_once() {
    let here = rig(ProviderKind::TencentCvm).fleet;
    let named = |name: &str| Fleet { name: name.into(), ..here.clone() };
    let mut far = named("far");
    far.place.region = Region::new("elsewhere");
    assert_eq!(fleets_there(&here, &[]), 1);
    assert_eq!(fleets_there(&here, &[here.clone(), named("b"), far]), 2);
    assert_eq!(fleets_there(&here, &[named("b"), named("c")]), 3);
}
