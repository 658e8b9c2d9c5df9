//! What a rollout keeps to, killed at its calls: a cap over all fleets of an account, hooks that drain before a batch and bring
//! back after it, windows in simulated time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekeyd::clock::Clock;
use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{batch_time, begin, propose};
use rekeyd::hook::{Fault, Run, Runner, Running};
use rekeyd::model::{Duration, ProviderKind, Timestamp};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Call, Event, HoldReason, HookCommand, Hooks, Outcome, Plan, Standing, Window, Windows};
use rekeyd::sim::{Power, World};
use rekeyd::store::Journal;

use crate::daemon::Daemon;
use crate::fuse::{Fuse, Side};
use crate::pool;
use crate::rig::{Rig, Scenario, TAG};

/// Who is down because of us.
pub fn down(world: &World) -> Vec<String> {
    let ours = |because: &Option<String>| because.as_ref().is_some_and(|because| because != "console");
    let is_down = |machine: &&rekeyd::sim::Machine| {
        let managed = machine.tags.contains(&(TAG.0.to_string(), TAG.1.to_string()));
        managed && !matches!(machine.power, Power::Running | Power::Gone) && ours(&machine.down_because)
    };
    world.machines().map(|(_, machine)| machine).filter(is_down).map(|machine| machine.id.clone()).collect()
}

pub fn hooks() -> Hooks {
    let hook = |name: &str| HookCommand { command: vec![name.to_string()], timeout: Duration::from_secs(60) };
    Hooks { before_batch: Some(hook("drain")), after_batch: Some(hook("bring-back")) }
}

/// A load balancer: `drain` takes machines out of it, `bring-back` puts them in again. It outlives the engines.
pub struct Drains {
    fuse: Arc<Fuse>,
    drained: Mutex<BTreeSet<String>>,
    /// So many of the next runs fail, having done nothing.
    pub failing: Mutex<u32>,
}

impl Drains {
    pub fn new(fuse: Arc<Fuse>) -> Self {
        Self { fuse, drained: Mutex::default(), failing: Mutex::default() }
    }
    pub fn has(&self, id: &str) -> bool {
        self.drained.lock().unwrap().contains(id)
    }
    pub fn drained(&self) -> Vec<String> {
        self.drained.lock().unwrap().iter().cloned().collect()
    }
    fn run(&self, run: &Run) -> Result<(), Fault> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(Fault { why: "exit code 1".to_string(), output: "not now".to_string() });
        }
        let ids = run.input.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["id"].as_str().unwrap().to_string()
        });
        let mut drained = self.drained.lock().unwrap();
        match run.command[0].as_str() {
            "drain" => drained.extend(ids),
            _ => {
                let back: BTreeSet<String> = ids.collect();
                drained.retain(|id| !back.contains(id));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Runner for Drains {
    async fn start(&self, run: Run) -> Running {
        let done = self.fuse.around(format!("hook {}", run.command[0]), async { self.run(&run) }).await;
        Box::pin(async move { done })
    }
}

fn two_fleets(provider: ProviderKind, second: ProviderKind, cap: u32) -> Scenario {
    let second = Some(second);
    Scenario { second, account_max: Some(cap), refused: false, rounds: 1, ..Scenario::of(provider) }
}

/// One rotation of each of two fleets of one account, by the schedule, killed at these calls.
async fn capped(provider: ProviderKind, second: ProviderKind, blows: Option<(usize, Side)>) -> usize {
    let mut daemon = Daemon::new(two_fleets(provider, second, 1), true, blows);
    daemon.complete(1).await;
    let unkept = daemon.unkept().await;
    assert!(unkept.is_empty(), "{provider} {second} {blows:?}\n{}\n{unkept:#?}", daemon.story().await);
    daemon.rig.fuse.calls().len()
}

async fn sweep_capped(provider: ProviderKind, second: ProviderKind) {
    let calls = capped(provider, second, None).await;
    for number in (0..calls).step_by(7) {
        let side = if number % 2 == 0 { Side::Before } else { Side::After };
        capped(provider, second, Some((number, side))).await;
    }
    assert!(calls > 150, "{calls} calls");
}

#[tokio::test]
async fn two_fleets_of_an_account_never_have_more_down_than_its_cap_when_killed_on_lighthouse_and_ecs() {
    sweep_capped(ProviderKind::TencentLighthouse, ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn two_fleets_of_an_account_never_have_more_down_than_its_cap_when_killed_on_cvm_and_bcc() {
    sweep_capped(ProviderKind::TencentCvm, ProviderKind::BaiduBcc).await;
}

/// Two fleets driven at the same time, call by call in turn.
async fn at_once(cap: Option<u32>) -> (usize, Vec<String>, bool) {
    let scenario = two_fleets(ProviderKind::TencentLighthouse, ProviderKind::AlibabaEcs, cap.unwrap_or(99));
    let mut rig = Rig::new(scenario, pool(), None);
    rig.fuse.yields();
    let fleets = rig.fleets();
    let (mut engines, mut ids): (Vec<Engine>, Vec<_>) = Default::default();
    for fleet in &fleets {
        let engine = rig.engine();
        let proposal = propose(engine.tools(), fleet, &[]).await.unwrap();
        ids.push(begin(engine.tools(), &proposal).await.unwrap().id);
        engines.push(engine);
    }
    let [mut web, mut db]: [Engine; 2] = engines.try_into().ok().unwrap();
    let (mut most, mut waited) = (0, false);
    for _ in 0..4000 {
        let (a, b) = tokio::join!(web.turn(ids[0]), db.turn(ids[1]));
        let (a, b) = (a.unwrap(), b.unwrap());
        most = most.max(down(&rig.world.lock().unwrap()).len());
        waited |= [&a, &b].iter().any(|turn| turn.waiting.as_ref().is_some_and(|why| why.contains("unavailable_max")));
        if a.standing == Standing::Ended && b.standing == Standing::Ended {
            return (most, rig.fuse.broken(), waited);
        }
        let open = [&a, &b].into_iter().filter(|turn| turn.standing != Standing::Ended);
        let wake = open.map(|turn| turn.wake).min().unwrap();
        let soon = later(rig.clock.now(), Duration::from_millis(200));
        rig.clock.advance_to(wake.max(soon));
    }
    panic!("not done: {}", rig.story().await);
}

#[tokio::test]
async fn turns_at_the_same_time_share_the_cap_of_their_account() {
    let (most, broken, waited) = at_once(Some(1)).await;
    assert_eq!((most, broken, waited), (1, Vec::new(), true));
    // Without it more are down: the test would see it.
    let (most, _, waited) = at_once(None).await;
    assert!(most > 1 && !waited, "{most}");
}

fn with_hooks(provider: ProviderKind) -> Scenario {
    Scenario { hooks: true, rounds: 1, ..Scenario::of(provider) }
}

async fn drained(provider: ProviderKind, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut rig = Rig::new(with_hooks(provider), pool(), blows);
    let report = rig.run().await;
    let left = rig.drains.drained();
    assert!(
        report.problems.is_empty() && left.is_empty(),
        "{provider} {blows:?}\n{}\n{:#?}\nstill drained: {left:?}",
        rig.story().await,
        report.problems
    );
    report.calls
}

async fn sweep_hooks(provider: ProviderKind) {
    let calls = drained(provider, None).await;
    let count = |what: &str| calls.iter().filter(|call| *call == what).count();
    assert!(count("hook drain") >= 2 && count("hook drain") == count("hook bring-back"), "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        if call.contains("hook") || number % 6 == 0 {
            drained(provider, Some((number, Side::Before))).await;
            drained(provider, Some((number, Side::After))).await;
        }
    }
    // Held at each sixth call: nobody stays drained, and a release begins the batch anew.
    let mut held = 0;
    for number in (0..calls.len()).step_by(6) {
        let mut rig = Rig::new(with_hooks(provider), pool(), [(number, Side::After)]);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        tokio::select! {
            biased;
            _ = rig.rotate(&mut engine) => {}
            () = fuse.blown() => {}
        }
        let Some(id) = rig.open_rotation().await else { continue };
        rig.operate(Event::Held { reason: Rig::operators_hold() }).await;
        let reached = rig.engine().drive(id).await.unwrap();
        assert!(matches!(&reached, Reached::Held { down, .. } if down.is_empty()), "call {number}: {reached:?}");
        assert_eq!(rig.drains.drained(), Vec::<String>::new(), "call {number}\n{}", rig.story().await);
        rig.operate(Event::Released { note: String::new(), allow: None }).await;
        let report = rig.run().await;
        assert!(report.problems.is_empty(), "call {number}: {:#?}\n{}", report.problems, rig.story().await);
        held += 1;
    }
    assert!(held > 10, "{held} holds");
}

#[tokio::test]
async fn who_is_drained_is_brought_back_when_killed_or_held_on_lighthouse() {
    sweep_hooks(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn who_is_drained_is_brought_back_when_killed_or_held_on_cvm() {
    sweep_hooks(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn who_is_drained_is_brought_back_when_killed_or_held_on_ecs() {
    sweep_hooks(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn who_is_drained_is_brought_back_when_killed_or_held_on_bcc() {
    sweep_hooks(ProviderKind::BaiduBcc).await;
}

#[tokio::test]
async fn a_hook_that_fails_holds_before_anything_is_disturbed_and_is_run_again_after_a_release() {
    let mut rig = Rig::new(with_hooks(ProviderKind::AlibabaEcs), pool(), None);
    // The drain, and what follows it during the hold.
    *rig.drains.failing.lock().unwrap() = 2;
    let mut engine = rig.engine();
    let error = rig.rotate(&mut engine).await.unwrap_err();
    assert!(error.contains("canary: the before_batch hook failed") || error.contains("BeforeBatch"), "{error}");
    let id = rig.open_rotation().await.unwrap();
    let held = engine.rotation(id).unwrap().held.clone();
    assert!(matches!(held, Some(HoldReason::Hook { batch: 0, .. })), "{held:?}");
    assert_eq!(engine.rotation(id).unwrap().owed(), 0);
    rig.operate(Event::Released { note: String::new(), allow: None }).await;
    let report = rig.run().await;
    assert!(report.problems.is_empty(), "{:#?}\n{}", report.problems, rig.story().await);
    assert_eq!(rig.drains.drained(), Vec::<String>::new());
}

/// Every hour, for so long.
fn hourly(length: Duration) -> Windows {
    let from = |hour: i8| jiff::civil::time(hour, 0, 0, 0);
    let window = |hour| Window { days: (1..=7).collect(), from: from(hour), to: from(hour) + length };
    Windows { zone: "UTC".to_string(), windows: (0..24).map(window).collect(), freeze: Vec::new() }
}

/// A rotation in windows that are little longer than a batch takes; killed at this call.
async fn windowed(provider: ProviderKind, blows: Option<(usize, Side)>) -> Vec<String> {
    let takes = batch_time(rekeyd::provider::limits(provider).downtime);
    let windows = hourly(takes + Duration::from_secs(20));
    let scenario = Scenario { windows, rounds: 1, unavailable_max: 1, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), blows);
    let report = rig.run().await;
    let mut problems = report.problems;
    let head = rig.journal.heads().await.unwrap().readable.remove(0);
    let Plan::Rotate(plan) = &head.plan else { panic!("{head:?}") };
    let mut touched = BTreeSet::new();
    let mut hours: BTreeSet<i64> = BTreeSet::new();
    for entry in rig.journal.read(head.id, 0).await.unwrap() {
        let Event::Started { call: Call::Stop | Call::Bind | Call::Reboot, found, .. } = &entry.event else { continue };
        for found in found {
            if touched.insert(found.instance.clone()) {
                hours.insert(entry.at.as_second() / 3600);
                if !plan.policy.pace.fits(entry.at) {
                    problems.push(format!("{} is disturbed at {}, outside the windows", found.instance, entry.at));
                }
            }
        }
    }
    if hours.len() < 2 {
        problems.push(format!("all in one window: {hours:?}"));
    }
    assert!(problems.is_empty(), "{provider} {blows:?}\n{}\n{problems:#?}", rig.story().await);
    report.calls
}

async fn sweep_windows(provider: ProviderKind) {
    let calls = windowed(provider, None).await;
    for number in (0..calls.len()).step_by(11) {
        windowed(provider, Some((number, Side::After))).await;
    }
}

#[tokio::test]
async fn nobody_is_disturbed_first_outside_a_window_when_killed_on_lighthouse_and_ecs() {
    sweep_windows(ProviderKind::TencentLighthouse).await;
    sweep_windows(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn nobody_is_disturbed_first_outside_a_window_when_killed_on_cvm_and_bcc() {
    sweep_windows(ProviderKind::TencentCvm).await;
    sweep_windows(ProviderKind::BaiduBcc).await;
}

/// Until now the first tick of a fleet; `Timestamp::MIN` asks for all that was heard.
const ALL: Timestamp = Timestamp::MIN;

#[tokio::test]
async fn a_tick_outside_all_windows_waits_for_one_within_the_slack_or_is_skipped() {
    use rekeyd::scheduler::Ticked;
    // Ticks come at 5, 15, 25 … minutes past, up to 40 s later; slack is 5 minutes.
    let check = async |from: i8, to: i8, told: &[Ticked], begun_minute: i8, waited: &[i64]| {
        let time = |minute: i8| jiff::civil::time(3, minute, 0, 0);
        let window = Window { days: (1..=7).collect(), from: time(from), to: time(to) };
        let windows = Windows { zone: "UTC".to_string(), windows: vec![window], freeze: Vec::new() };
        let scenario = Scenario { windows, ..Scenario::of(ProviderKind::AlibabaEcs) };
        let mut daemon = Daemon::new(scenario, true, None);
        daemon.go_on_until("2026-11-22T03:35:00Z".parse().unwrap()).await;
        let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
        let minutes: Vec<i64> = rotations.iter().map(|head| head.begun.as_second() % 3600 / 60).collect();
        assert_eq!(minutes.first().copied(), Some(i64::from(begun_minute)), "{from}-{to}");
        let heard = daemon.ticked_since(ALL);
        assert_eq!(&heard[..told.len()], told, "{from}-{to}");
        assert_eq!(daemon.waited().into_iter().collect::<Vec<_>>(), waited, "{from}-{to}");
    };
    check(0, 50, &[Ticked::Started], 5, &[]).await;
    check(8, 50, &[Ticked::CaughtUp], 8, &[5, 6, 7]).await;
    check(14, 50, &[Ticked::Closed, Ticked::Started], 15, &[]).await;
}

#[tokio::test]
async fn a_key_is_due_at_the_first_tick_after_the_rotation_that_made_it_began() {
    let mut daemon = Daemon::new(Scenario::of(ProviderKind::AlibabaEcs), true, None);
    daemon.go_on_until("2026-11-22T03:04:00Z".parse().unwrap()).await;
    assert_eq!(daemon.key_due(), None, "nothing was rotated yet");
    daemon.go_on_until("2026-11-22T03:33:00Z".parse().unwrap()).await;
    let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
    let completed = rotations.iter().filter(|head| matches!(head.ended, Some((_, Outcome::Completed)))).count();
    assert!(completed >= 2, "{rotations:?}");
    assert_eq!(daemon.key_due(), Some(daemon.due(completed)));
}

#[tokio::test]
async fn a_selection_that_grew_too_much_is_refused_until_the_next_tick_and_forced_by_name() {
    use rekeyd::rotation::Rule;
    use rekeyd::scheduler::Ticked;
    use rekeyd::store::{Agenda, Answer, Ask};
    let mut daemon = Daemon::new(Scenario::of(ProviderKind::AlibabaEcs), true, None);
    daemon.complete(1).await;
    {
        let mut world = daemon.rig.world.lock().unwrap();
        for _ in 0..3 {
            let tags = vec![(TAG.0.to_string(), TAG.1.to_string())];
            world.add_instance(0, rekeyd::sim::InstanceSpec { tags, ..Default::default() });
        }
    }
    let from = daemon.rig.clock.now();
    let due = daemon.due(1);
    daemon.go_on_until(later(due, Duration::from_secs(60))).await;
    // Refused once, and not again before the next tick.
    assert_eq!(daemon.ticked_since(from), [Ticked::Refused]);
    let ask = async |daemon: &Daemon, force: Vec<Rule>| {
        let by = rekeyd::rotation::Author::Operator("test".to_string());
        let (fleet, now) = (daemon.rig.fleet().name, daemon.rig.clock.now());
        daemon
            .rig
            .journal
            .ask(&fleet, &Ask::Rotate { force, compromised: false, unavailable_max: None }, &by, now)
            .await
            .unwrap()
    };
    let answer = async |daemon: &mut Daemon, id| {
        let until = later(daemon.rig.clock.now(), Duration::from_secs(20));
        daemon.go_on_until(until).await;
        daemon.rig.journal.request(id).await.unwrap().answer.unwrap().1
    };
    let id = ask(&daemon, Vec::new()).await;
    let Answer::Refused(why) = answer(&mut daemon, id).await else { panic!("not refused") };
    for words in ["grew from 6 to 9 instances", "30 %", "`rekeyd rotate web --force=size-change`"] {
        assert!(why.contains(words), "{why}");
    }
    let id = ask(&daemon, vec![Rule::SizeChange]).await;
    assert!(matches!(answer(&mut daemon, id).await, Answer::Rotation(_)));
}
