//! Real OpenSSH as the simulated machines' guests: what a bind, a boot, a stop and a test's meddling change for somebody
//! who logs in. The keys are bound through the providers' clients, the logins are `ssh`'s own.

#![allow(clippy::unwrap_used)]

mod simulator;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekeyd::clock::{Clock, SystemClock};
use rekeyd::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey, Region, Timestamp};
use rekeyd::net::Network;
use rekeyd::provider::{Credentials, Power, PowerChange, Provider, Select, Settings, open};

use simulator::{Login, PATIENCE, Simulator, eventually, new_key, texts};

/// One cloud of a simulator, and one machine of it whose guest takes the first of two keys.
struct Visit<'a> {
    simulator: &'a Simulator,
    kind: ProviderKind,
    cloud: Arc<dyn Provider>,
    instance: InstanceId,
    address: String,
    keys: [PathBuf; 2],
    pairs: [KeyPairId; 2],
}

fn before() -> Timestamp {
    SystemClock.now().checked_add(PATIENCE).unwrap()
}

impl<'a> Visit<'a> {
    async fn to(simulator: &'a Simulator, number: usize) -> Self {
        let ready = &simulator.ready["clouds"][number];
        let text = |name: &str| ready[name].as_str().unwrap().to_string();
        let kind = ProviderKind::ALL[number];
        assert_eq!(text("provider"), kind.as_str());
        let settings = Settings {
            provider: kind,
            endpoint: Some(text("endpoint")),
            region: Region::new(text("region")),
            credentials: Credentials {
                access_key_id: text("access_key_id"),
                access_key_secret: text("access_key_secret").into(),
                session_token: None,
            }
            .into(),
            rates: Default::default(),
            api: Default::default(),
        };
        let cloud = open(&settings, Arc::new(Network::new().unwrap()), Arc::new(SystemClock), 5).unwrap();
        let tags = ready["tags"].as_object().unwrap().iter();
        let tags = tags.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_string())).collect();
        let seen = cloud.instances(&Select::Tags(tags)).await.unwrap();
        let chosen = seen.iter().find(|one| one.power == Power::Running && one.unfit.is_none() && one.keys.len() == 1);
        let chosen = chosen.unwrap();
        let address = chosen.private_address.unwrap();
        assert!(address.is_loopback() && chosen.public_address == Some(address), "{chosen:?}");
        let (mut keys, mut pairs) = (Vec::new(), Vec::new());
        for name in ["first", "second"] {
            let path = simulator.room.path().join(format!("{kind}-{name}"));
            let public = PublicKey::parse(&new_key(&path).await).unwrap();
            pairs.push(cloud.import_key_pair(&KeyPairName::new(name), &public, before()).await.unwrap());
            keys.push(path);
        }
        let visit = Self {
            simulator,
            kind,
            instance: chosen.id.clone(),
            cloud,
            address: address.to_string(),
            keys: keys.try_into().unwrap(),
            pairs: pairs.try_into().unwrap(),
        };
        assert_eq!(simulator.truth(visit.instance.as_str()).await["address"], visit.address);
        assert_eq!(visit.login(0).await, Login::Refused, "{kind}: the key is not bound yet");
        visit.bind_and_boot(0).await;
        visit
    }

    async fn login(&self, key: usize) -> Login {
        self.simulator.login(&self.address, &self.keys[key]).await
    }

    fn welcome(&self) -> Login {
        Login::In(self.instance.to_string())
    }

    async fn host_keys(&self) -> Vec<String> {
        self.simulator.host_keys(&self.address).await
    }

    async fn meddle(&self, name: &str) {
        self.simulator.post(&format!("/meddle?{name}={}", self.instance)).await;
    }

    async fn comes_to(&self, state: &str) {
        self.simulator.comes_to(self.instance.as_str(), state).await;
    }

    async fn power(&self, change: PowerChange) {
        let instances = [self.instance.clone()];
        let call = async || self.cloud.power(change, &instances, before()).await.ok();
        let accepted = eventually(&format!("{change:?}"), call).await;
        assert!(accepted.refused.is_empty(), "{accepted:?}");
    }

    async fn bind(&self, key: usize) {
        let instances = [self.instance.clone()];
        // A moment after an operation the clouds still refuse another.
        let call = async || self.cloud.bind(&self.pairs[key], &instances, before()).await.ok();
        let accepted = eventually("a bind", call).await;
        assert!(accepted.refused.is_empty(), "{accepted:?}");
    }

    /// What each cloud needs until a bound key works.
    async fn bind_and_boot(&self, key: usize) {
        let boots = async || self.simulator.truth(self.instance.as_str()).await["boots"].as_u64().unwrap();
        let before = boots().await;
        match self.kind {
            ProviderKind::TencentLighthouse => {
                self.bind(key).await;
                self.comes_to("stopped").await;
                self.power(PowerChange::Start).await;
            }
            ProviderKind::TencentCvm => {
                self.power(PowerChange::Stop { force: false }).await;
                self.comes_to("stopped").await;
                self.bind(key).await;
                let bound = async || {
                    let seen = self.cloud.instances(&Select::Ids(vec![self.instance.clone()])).await.unwrap().remove(0);
                    (seen.keys == [self.pairs[key].clone()] && !seen.is_busy()).then_some(())
                };
                eventually("the record", bound).await;
                self.power(PowerChange::Start).await;
            }
            ProviderKind::AlibabaEcs => {
                let was = [self.login(0).await, self.login(1).await];
                self.bind(key).await;
                assert_eq!([self.login(0).await, self.login(1).await], was, "the key waits for a boot");
                self.power(PowerChange::Reboot).await;
            }
            ProviderKind::BaiduBcc => self.bind(key).await,
        }
        // Baidu reboots by itself a moment after the bind.
        eventually("the boot", async || (boots().await > before).then_some(())).await;
        self.comes_to("running").await;
    }
}

/// Lets a case visit each cloud of one simulator.
macro_rules! each_cloud {
    ($simulator:expr, $case:expr) => {{
        let visits = [0, 1, 2, 3].map(|number| async move { $case(Visit::to($simulator, number).await).await });
        let [one, two, three, four] = visits;
        tokio::join!(one, two, three, four);
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_takes_the_bound_key_after_what_its_cloud_needs_and_no_longer_the_old_one() {
    let simulator = &Simulator::open(&["--ssh-port", "0"]).await;
    each_cloud!(simulator, async |visit: Visit<'_>| {
        let kind = visit.kind;
        assert_eq!([visit.login(0).await, visit.login(1).await], [visit.welcome(), Login::Refused], "{kind}");
        visit.bind_and_boot(1).await;
        assert_eq!([visit.login(0).await, visit.login(1).await], [Login::Refused, visit.welcome()], "{kind}");
    });
    assert_eq!(simulator.control("GET /violations").await.1, r#"{"violations":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_machine_refuses_and_its_host_keys_outlive_a_boot_but_not_a_new_image() {
    let simulator = &Simulator::open(&["--ssh-port", "0"]).await;
    each_cloud!(simulator, async |visit: Visit<'_>| {
        let (kind, keys) = (visit.kind, visit.host_keys().await);
        let mut session = visit.simulator.ssh_command(&visit.address, &visit.keys[0]).arg("-N").spawn().unwrap();
        visit.power(PowerChange::Stop { force: false }).await;
        let away = visit.login(0).await;
        assert!(matches!(&away, Login::Away(why) if why.contains("refused")), "{kind}: {away:?}");
        let cut = tokio::time::timeout(PATIENCE, session.wait()).await.unwrap().unwrap();
        assert!(!cut.success(), "{kind}: a session ends with the machine");
        visit.comes_to("stopped").await;
        visit.power(PowerChange::Start).await;
        visit.comes_to("running").await;
        assert_eq!(visit.login(0).await, visit.welcome(), "{kind}: who runs answers");
        assert_eq!(visit.host_keys().await, keys, "{kind}");
        visit.simulator.post(&format!("/reimage?instance={}", visit.instance)).await;
        let anew = visit.host_keys().await;
        assert!(anew.iter().all(|key| !keys.contains(key)), "{kind}");
        assert_eq!([visit.login(0).await, visit.login(1).await], [visit.welcome(), Login::Refused], "{kind}");
        visit.simulator.post(&format!("/hostkey?instance={}", visit.instance)).await;
        let changed = visit.host_keys().await;
        assert!(changed.iter().all(|key| !keys.contains(key) && !anew.contains(key)), "{kind}");
        assert_eq!(visit.login(0).await, visit.welcome(), "{kind}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_meddled_with_does_as_it_was_told() {
    let simulator = &Simulator::open(&["--ssh-port", "0"]).await;
    each_cloud!(simulator, async |visit: Visit<'_>| {
        let kind = visit.kind;
        visit.meddle("unreachable").await;
        let away = visit.login(0).await;
        assert!(matches!(&away, Login::Away(why) if why.contains("refused")), "{kind}: {away:?}");
        visit.meddle("well").await;
        assert_eq!(visit.login(0).await, visit.welcome(), "{kind}");

        let slow = format!("/meddle?slow={}:1500ms", visit.instance);
        visit.simulator.post(&slow).await;
        let began = Instant::now();
        assert_eq!(visit.login(0).await, visit.welcome(), "{kind}");
        assert!(began.elapsed() >= Duration::from_millis(1500), "{kind}");
        visit.meddle("well").await;

        visit.meddle("stopped").await;
        assert!(matches!(visit.login(0).await, Login::Away(_)), "{kind}");
        visit.meddle("running").await;
        assert_eq!(visit.login(0).await, visit.welcome(), "{kind}");

        visit.meddle("old-key-stays").await;
        visit.bind_and_boot(1).await;
        assert_eq!([visit.login(0).await, visit.login(1).await], [visit.welcome(), visit.welcome()], "{kind}");
        visit.meddle("well").await;
        visit.bind_and_boot(0).await;
        assert_eq!([visit.login(0).await, visit.login(1).await], [visit.welcome(), Login::Refused], "{kind}");

        visit.meddle("never-accepts").await;
        visit.bind_and_boot(1).await;
        assert_eq!([visit.login(0).await, visit.login(1).await], [visit.welcome(), Login::Refused], "{kind}");
    });
    for (request, expect) in [
        ("POST /meddle?unreachable=i-0", "no instance i-0"),
        ("POST /meddle?sick=i-0", "no mischief"),
        ("POST /reimage", "no mischief"),
    ] {
        let (status, said) = simulator.control(request).await;
        assert!(status == 400 && said.contains(expect), "{request}: {status} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_machine_answers_nothing_and_sshd_comes_up_when_it_is_told() {
    let simulator = &Simulator::open(&["--ssh-port", "0", "--ssh-down", "silent", "--ssh-delay", "1s"]).await;
    let visit = Visit::to(simulator, 0).await;
    eventually("the first login", async || (visit.login(0).await == visit.welcome()).then_some(())).await;
    visit.meddle("stopped").await;
    let mut knocking = simulator.ssh_command(&visit.address, &visit.keys[0]).spawn().unwrap();
    let early = tokio::time::timeout(Duration::from_millis(1500), knocking.wait()).await;
    assert!(early.is_err(), "nothing comes back, no refusal either: {early:?}");
    drop(knocking);
    let began = Instant::now();
    visit.meddle("running").await;
    eventually("its sshd", async || (visit.login(0).await == visit.welcome()).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "its sshd came up after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn simulators_stand_beside_each_other_at_one_port_and_leave_nothing_behind() {
    let mut one = Simulator::open(&["--ssh-port", "0"]).await;
    let port = one.ssh().0.to_string();
    let mut two = Simulator::open(&["--ssh-port", &port]).await;
    assert_eq!(one.ssh(), two.ssh());
    let (here, there) = (Visit::to(&one, 0).await, Visit::to(&two, 0).await);
    assert_ne!(here.address, there.address);
    assert_eq!((here.instance.clone(), here.login(0).await), (there.instance.clone(), here.welcome()), "the same seed");
    assert_eq!(simulator_keys(&here).await, simulator_keys(&there).await);
    assert_eq!(there.login(0).await, there.welcome());
    let mut sessions = [&here, &there]
        .map(|visit| visit.simulator.ssh_command(&visit.address, &visit.keys[0]).arg("-N").spawn().unwrap());
    let open = async |simulator: &Simulator| {
        eventually("a session's sshd", async || (!simulator.processes().is_empty()).then_some(())).await;
    };
    open(&one).await;
    open(&two).await;
    let keys = [here.keys.clone(), there.keys.clone()].concat();
    one.end("TERM").await;
    two.end("KILL").await;
    for session in &mut sessions {
        assert!(!tokio::time::timeout(PATIENCE, session.wait()).await.unwrap().unwrap().success());
    }
    for simulator in [&one, &two] {
        eventually("their sshd to end", async || simulator.processes().is_empty().then_some(())).await;
    }
    let own = |path: &PathBuf| keys.iter().any(|key| *path == *key || *path == key.with_extension("pub"));
    let left: Vec<PathBuf> = one.leftovers().into_iter().filter(|path| !own(path)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Host keys without the address that they were read from.
async fn simulator_keys(visit: &Visit<'_>) -> Vec<String> {
    visit.host_keys().await.iter().map(|line| line.split_once(' ').unwrap().1.to_string()).collect()
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_in_clear_words() {
    let room = tempfile::tempdir().unwrap();
    let check = async |options: &[&str], expect: &str| {
        let said =
            Simulator::command(room.path(), options).stderr(std::process::Stdio::piped()).output().await.unwrap();
        let (_, err) = texts(&said);
        assert!(said.status.code() == Some(1) && err.contains(expect), "{options:?}: {said:?}");
    };
    check(&["--ssh-user", "rekeyd-nobody-of-this-name"], "give another --ssh-user").await;
    check(&["--ssh-down", "dead"], "refused or silent").await;
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0, "and nothing is left");
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    check(&["--ssh-port", &port], "give another --ssh-port").await;
    let nowhere = room.path().join("nowhere");
    let said = Simulator::command(&nowhere, &[]).stderr(std::process::Stdio::piped()).output().await.unwrap();
    assert!(texts(&said).1.contains("nowhere"), "{said:?}");
}
