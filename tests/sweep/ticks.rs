//! The daemon between its ticks: killed at every call of the scheduler and of the engines, away for long, in bad weather,
//! and with an operator at another terminal. Each tick is served once or excused, each request answered once.

use rekeyd::clock::Clock;
use rekeyd::model::{Duration, ProviderKind, Timestamp};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Author, Outcome, Plan};
use rekeyd::scheduler::Ticked;
use rekeyd::sim::{InstanceSpec, Rng};
use rekeyd::store::{Agenda, Answer, Ask, Head};

use crate::back::add_machine;
use crate::daemon::{Daemon, Deed, SLACK};
use crate::fuse::Side;
use crate::rig::Scenario;
use crate::seeds::{WEATHER, seeds};

/// The calls that take a machine down, or may.
fn disturbs(call: &str) -> bool {
    let names = ["AssociateInstancesKeyPairs", "StopInstances", "RebootInstances", "AttachKeyPair", "RebootInstance"];
    let words = ["?attach", "?stop", "?reboot", "action=stop", "action=reboot"];
    names.contains(&call) || words.iter().any(|word| call.contains(word))
}

/// The calls whose outcome is the scheduler's to find again.
fn writes(call: &str) -> bool {
    ["journal begin", "journal ended", "agenda set_due", "agenda answer"].contains(&call)
}

async fn asserted(daemon: &Daemon, unkept: Vec<String>, what: &str) {
    if !unkept.is_empty() {
        let provider = daemon.rig.scenario.provider;
        panic!("{provider} {what}\n{}\n{unkept:#?}", daemon.story().await);
    }
}

/// Two rotations by the schedule, killed at these calls.
async fn by_schedule(provider: ProviderKind, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut daemon = Daemon::new(Scenario::of(provider), true, blows);
    daemon.complete(2).await;
    let mut unkept = daemon.unkept().await;
    let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
    let begun: Vec<Timestamp> = rotations.iter().map(|head| head.begun).collect();
    let soon = |(number, at): (usize, &Timestamp)| {
        let due = daemon.due(number);
        *at >= due && *at <= later(due, Duration::from_secs(10))
    };
    if begun.len() != 2 || !begun.iter().enumerate().all(soon) {
        unkept.push(format!("begun at {begun:?}, due at {} and {}", daemon.due(0), daemon.due(1)));
    }
    if daemon.ticked_since(Timestamp::MIN).iter().any(|what| *what != Ticked::Started) {
        unkept.push("a tick was not merely served".to_string());
    }
    if daemon.rig.fuse.times() != usize::from(blows.is_some()) {
        unkept.push("the fuse did not blow".to_string());
    }
    asserted(&daemon, unkept, &format!("by its schedule, killed {blows:?}")).await;
    daemon.rig.fuse.calls()
}

async fn sweep_schedule(provider: ProviderKind) {
    let calls = by_schedule(provider, None).await;
    for (number, call) in calls.iter().enumerate() {
        by_schedule(provider, Some((number, Side::Before))).await;
        // Else it is after a call as it was before the next one.
        if writes(call) {
            by_schedule(provider, Some((number, Side::After))).await;
        }
    }
    let count = |what: &str| calls.iter().filter(|call| call.contains(what)).count();
    assert!(calls.len() > 150 && count("agenda") > 50, "{} calls, {} of the agenda", calls.len(), count("agenda"));
    assert!(count("set_due") >= 3 && count("journal begin") >= 3, "{calls:?}");
    assert!(calls.iter().any(|call| disturbs(call)), "{calls:?}");
}

/// Two rotations that are asked for one after the other, killed at this call.
async fn by_request(provider: ProviderKind, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut daemon = Daemon::new(Scenario::of(provider), false, blows);
    let mut unkept = Vec::new();
    for number in 1..=2 {
        daemon.hand(Deed::Rotate).await;
        daemon.complete(number).await;
        let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
        let answer = daemon.requests().await.pop().and_then(|request| request.answer).map(|(_, answer)| answer);
        if rotations.len() != number || answer != Some(Answer::Rotation(rotations[number - 1].id)) {
            unkept.push(format!("request {number}: {} rotations, answered {answer:?}", rotations.len()));
        }
    }
    unkept.extend(daemon.unkept().await);
    if daemon.rig.fuse.times() != usize::from(blows.is_some()) {
        unkept.push("the fuse did not blow".to_string());
    }
    asserted(&daemon, unkept, &format!("asked for, killed {blows:?}")).await;
    daemon.rig.fuse.calls()
}

/// Every call near a request, a beginning or an end; every sixth of the others, which the other sweeps have.
async fn sweep_requests(provider: ProviderKind, first: usize) {
    let calls = by_request(provider, None).await;
    let near = |number: usize| {
        let calls = &calls[number.saturating_sub(2)..(number + 3).min(calls.len())];
        calls.iter().any(|call| ["answer", "begin", "ended"].iter().any(|word| call.contains(word)))
    };
    let mut killed = 0;
    for number in (0..calls.len()).filter(|number| number % 6 == first || near(*number)) {
        for side in [Side::Before, Side::After] {
            by_request(provider, Some((number, side))).await;
        }
        killed += 1;
    }
    assert!(calls.iter().filter(|call| call.contains("answer")).count() == 2 && killed > 30, "{killed} of {calls:?}");
}

/// A hold at this call, for four minutes; then a release, in the midst of a turn.
async fn hold(provider: ProviderKind, call: usize, deed: Deed, is_killed: bool) {
    let mut daemon = Daemon::new(Scenario::of(provider), true, is_killed.then_some((call, Side::Before)));
    let web = daemon.rig.fleet().name;
    let fuse = daemon.rig.fuse.clone();
    let (hand, journal) = (daemon.hand(deed), daemon.rig.journal.clone());
    let begun = std::sync::Arc::new(std::sync::Mutex::new(0));
    let (count, fleet) = (begun.clone(), web.clone());
    fuse.lend(
        call,
        Box::pin(async move {
            hand.await;
            let heads = rekeyd::store::Journal::heads(journal.as_ref()).await.unwrap();
            *count.lock().unwrap() = heads.of(&fleet).filter(|head| matches!(head.plan, Plan::Rotate(_))).count();
        }),
    );
    while fuse.hands_left() > 0 && daemon.problems.is_empty() {
        daemon.step(Timestamp::MAX).await;
    }
    let from = daemon.rig.clock.now();
    // The turn after it takes in whatever the verb did not come to write.
    for _ in 0..2 {
        daemon.step(Timestamp::MAX).await;
    }
    let (sent, held) = (fuse.calls().len(), daemon.rig.clock.now());
    daemon.go_on_until(later(from, Duration::from_secs(240))).await;
    let mut unkept = Vec::new();
    for (number, call) in fuse.calls().iter().enumerate().skip(sent).filter(|(_, call)| disturbs(call)) {
        unkept.push(format!("call {number} {call} while held"));
    }
    let off = daemon.rig.switched_off();
    if !off.is_empty() {
        unkept.push(format!("switched off while held: {off:?}"));
    }
    let before = *begun.lock().unwrap();
    let after = daemon.rotations(&web).await.len();
    if after != before {
        unkept.push(format!("{before} rotations when it was held, and {after} when it was released"));
    }
    if daemon.ticked_since(held).contains(&Ticked::Failed) {
        unkept.push("a rotation was tried while held".to_string());
    }
    asserted(&daemon, unkept, &format!("{deed:?} at call {call}, killed {is_killed}")).await;
    fuse.lend(fuse.calls().len() + call % 5, daemon.hand(Deed::Release));
    while fuse.hands_left() > 0 && daemon.problems.is_empty() {
        daemon.step(Timestamp::MAX).await;
    }
    daemon.pauses.push((from, daemon.rig.clock.now()));
    daemon.complete(2).await;
    let unkept = daemon.unkept().await;
    asserted(&daemon, unkept, &format!("released after {deed:?} at call {call}, killed {is_killed}")).await;
}

/// A person gives up or asks for a rotation at this call. Says whether a rotation was given up.
async fn meddle(provider: ProviderKind, deed: Deed, call: usize) -> bool {
    let blows = (call / 2 % 2 == 1).then_some((call, Side::Before));
    let mut daemon = Daemon::new(Scenario::of(provider), true, blows);
    daemon.rig.fuse.lend(call, daemon.hand(deed));
    while daemon.rig.fuse.hands_left() > 0 && daemon.problems.is_empty() {
        daemon.step(Timestamp::MAX).await;
    }
    daemon.complete(2).await;
    let mut unkept = daemon.unkept().await;
    let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
    let given_up = rotations.iter().filter(|head| matches!(head.ended, Some((_, Outcome::Abandoned)))).count();
    if given_up > usize::from(deed == Deed::Abandon) || rotations.len() > 3 {
        unkept.push(format!("{} rotations, {given_up} of them abandoned", rotations.len()));
    }
    asserted(&daemon, unkept, &format!("{deed:?} at call {call}, killed {blows:?}")).await;
    given_up > 0
}

async fn operator(provider: ProviderKind, first: usize) {
    const WAYS: [(Deed, bool); 4] =
        [(Deed::Hold, false), (Deed::Hold, true), (Deed::Pause, false), (Deed::Pause, true)];
    let calls = by_schedule(provider, None).await;
    let mut held = 0;
    for (call, name) in calls.iter().enumerate() {
        for (way, (deed, is_killed)) in WAYS.into_iter().enumerate() {
            // The clouds begin at different calls: each place is come to on one of them. Where it matters most, in all ways.
            if disturbs(name) || ((call + first).is_multiple_of(4) && way == call / 4 % 4) {
                hold(provider, call, deed, is_killed).await;
                held += 1;
            }
        }
    }
    let (mut given_up, mut asked) = (0, 0);
    for call in (first..calls.len()).step_by(5) {
        given_up += usize::from(meddle(provider, Deed::Abandon, call).await);
        meddle(provider, Deed::Rotate, (call + 1) % calls.len()).await;
        asked += 1;
    }
    assert!(held > 50 && given_up > 6 && asked > 30, "{held} holds, {given_up} given up, {asked} requests");
}

/// Killed at a call, and away for five minutes, an hour or a day. Tells all that went wrong at once.
async fn away(provider: ProviderKind, first: usize) {
    let calls = by_schedule(provider, None).await;
    let mut problems = Vec::new();
    for (number, call) in (first..calls.len()).step_by(7).enumerate() {
        let mut daemon = Daemon::new(Scenario::of(provider), true, [(call, Side::Before)]);
        daemon.away = [300, 3600, 86_400].map(Duration::from_secs)[number % 3];
        daemon.complete(2).await;
        let unkept = daemon.unkept().await;
        if !unkept.is_empty() {
            problems.push(format!("away {:?} before call {call}, {}: {unkept:?}", daemon.away, calls[call]));
        }
    }
    assert!(problems.is_empty(), "{provider}\n{}", problems.join("\n"));
}

#[tokio::test]
async fn a_daemon_that_was_away_over_ticks_catches_up_the_newest_once_within_the_slack_or_skips() {
    // Away from so long before the first tick, for so long: which tick is served, and what is told.
    let check = async |before: u64, away: u64, served: usize, late: u64, told: &[Ticked]| {
        let mut daemon = Daemon::new(Scenario::of(ProviderKind::AlibabaEcs), true, None);
        daemon.go_on_until(daemon.due(0).checked_sub(Duration::from_secs(before)).unwrap()).await;
        daemon.killed(Duration::from_secs(away));
        daemon.complete(1).await;
        let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
        let begun: Vec<Timestamp> = rotations.iter().map(|head| head.begun).collect();
        assert_eq!(begun, [later(daemon.due(served), Duration::from_secs(late))], "{before} {away}");
        assert_eq!(daemon.ticked_since(Timestamp::MIN), told, "{before} {away}");
        let unkept = daemon.unkept().await;
        asserted(&daemon, unkept, &format!("away {away}, {before} before its tick")).await;
    };
    const SLACK_S: u64 = SLACK.as_secs();
    // Five minutes: within the slack, to the last second, and beyond it.
    check(120, 300, 0, 180, &[Ticked::CaughtUp]).await;
    check(0, SLACK_S, 0, SLACK_S, &[Ticked::CaughtUp]).await;
    check(0, SLACK_S + 1, 1, 0, &[Ticked::Missed, Ticked::Started]).await;
    check(120, 125, 0, 5, &[Ticked::Started]).await;
    // An hour: six ticks, of which the newest counts.
    check(60, 3600, 6, 0, &[Ticked::Missed, Ticked::Started]).await;
    check(60, 3780, 6, 120, &[Ticked::CaughtUp]).await;
    // A day.
    check(60, 86_400, 144, 0, &[Ticked::Missed, Ticked::Started]).await;
    check(60, 86_580, 144, 120, &[Ticked::CaughtUp]).await;
}

/// The second of two rotations of a way back cannot begin at first: the cloud throttles every call.
#[tokio::test]
async fn a_way_back_to_several_pairs_is_gone_on_with_when_the_cloud_answers_again() {
    let mut daemon = Daemon::new(Scenario { refused: false, ..Scenario::of(TencentLighthouse) }, false, None);
    add_machine(&daemon.rig, Some("zz_theirs"));
    daemon.hand(Deed::Rotate).await;
    daemon.complete(1).await;
    let fleet = daemon.rig.fleet().name;
    let rotations = async |daemon: &Daemon| daemon.rotations(&fleet).await;
    let undone = rotations(&daemon).await[0].id;
    let (by, now) = (Author::Operator("test".to_string()), daemon.rig.clock.now());
    daemon.rig.journal.ask(&fleet, &Ask::Rollback { rotation: undone }, &by, now).await.unwrap();
    let deadline = later(now, Duration::from_secs(3600));
    while !matches!(rotations(&daemon).await.as_slice(), [_, back] if back.ended.is_some()) {
        assert!(daemon.problems.is_empty() && daemon.rig.clock.now() < deadline, "{}", daemon.story().await);
        daemon.step(deadline).await;
    }
    daemon.rig.world.lock().unwrap().faults = "throttle=1".parse().unwrap();
    let outage = later(daemon.rig.clock.now(), Duration::from_secs(600));
    daemon.go_on_until(outage).await;
    assert_eq!(rotations(&daemon).await.len(), 2, "{}", daemon.story().await);
    daemon.rig.world.lock().unwrap().faults = Default::default();
    let minutes = later(daemon.rig.clock.now(), Duration::from_secs(900));
    daemon.go_on_until(minutes).await;
    let all = rotations(&daemon).await;
    let completed = |head: &Head| matches!(head.ended, Some((_, Outcome::Completed)));
    assert!(all.len() == 3 && all.iter().all(completed), "{}", daemon.story().await);
    let problems = [daemon.problems.clone(), daemon.rig.fuse.broken()].concat();
    assert!(problems.is_empty(), "{}\n{problems:#?}", daemon.story().await);
    let undoes = |head: &Head| match &head.plan {
        Plan::Rotate(plan) => plan.undoes,
        Plan::Retire(_) => None,
    };
    assert!(all[1..].iter().all(|head| undoes(head) == Some(undone)));
}

/// Two fleets of two clouds under one scheduler, in bad weather, killed at a few calls by chance.
async fn weather(provider: ProviderKind, second: ProviderKind) {
    for seed in seeds() {
        let mut chance = Rng::new(seed);
        let blows: Vec<(usize, Side)> = (0..4)
            .map(|_| (chance.below(600), if chance.below(2) == 0 { Side::Before } else { Side::After }))
            .collect();
        let (faults, second) = (WEATHER, Some(second));
        let scenario = Scenario { seed, faults, second, failures_max: 5, canary: 2, ..Scenario::of(provider) };
        let mut daemon = Daemon::new(scenario, true, blows);
        daemon.complete(2).await;
        let unkept = daemon.unkept().await;
        asserted(&daemon, unkept, &format!("and {second:?}, seed {seed}")).await;
    }
}

macro_rules! on_each_cloud {
    ($($name:ident: $what:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            $what.await;
        }
    )*};
}

use ProviderKind::{AlibabaEcs, BaiduBcc, TencentCvm, TencentLighthouse};

on_each_cloud! {
    a_daemon_killed_at_any_call_serves_each_tick_once_on_lighthouse: sweep_schedule(TencentLighthouse);
    a_daemon_killed_at_any_call_serves_each_tick_once_on_cvm: sweep_schedule(TencentCvm);
    a_daemon_killed_at_any_call_serves_each_tick_once_on_ecs: sweep_schedule(AlibabaEcs);
    a_daemon_killed_at_any_call_serves_each_tick_once_on_bcc: sweep_schedule(BaiduBcc);
    a_request_is_answered_once_and_rotates_once_on_lighthouse: sweep_requests(TencentLighthouse, 0);
    a_request_is_answered_once_and_rotates_once_on_cvm: sweep_requests(TencentCvm, 1);
    a_request_is_answered_once_and_rotates_once_on_ecs: sweep_requests(AlibabaEcs, 2);
    a_request_is_answered_once_and_rotates_once_on_bcc: sweep_requests(BaiduBcc, 3);
    an_operator_between_ticks_is_obeyed_and_all_ends_well_on_lighthouse: operator(TencentLighthouse, 0);
    an_operator_between_ticks_is_obeyed_and_all_ends_well_on_cvm: operator(TencentCvm, 1);
    an_operator_between_ticks_is_obeyed_and_all_ends_well_on_ecs: operator(AlibabaEcs, 2);
    an_operator_between_ticks_is_obeyed_and_all_ends_well_on_bcc: operator(BaiduBcc, 3);
    a_daemon_killed_and_away_for_long_loses_nobody_on_lighthouse: away(TencentLighthouse, 0);
    a_daemon_killed_and_away_for_long_loses_nobody_on_cvm: away(TencentCvm, 1);
    a_daemon_killed_and_away_for_long_loses_nobody_on_ecs: away(AlibabaEcs, 2);
    a_daemon_killed_and_away_for_long_loses_nobody_on_bcc: away(BaiduBcc, 3);
    two_fleets_keep_the_promise_in_bad_weather_on_lighthouse_and_ecs: weather(TencentLighthouse, AlibabaEcs);
    two_fleets_keep_the_promise_in_bad_weather_on_cvm_and_bcc: weather(TencentCvm, BaiduBcc);
}

/// Who came after the rotation is kept for `status`, as of the newest hourly look; a catch-up that finds nobody is answered so.
#[tokio::test]
async fn who_came_late_is_kept_by_the_hourly_look_and_nobody_is_an_answer_of_its_own() {
    for provider in ProviderKind::ALL {
        let mut daemon = Daemon::new(Scenario { refused: false, stopped: 0, ..Scenario::of(provider) }, false, None);
        daemon.hand(Deed::Rotate).await;
        daemon.complete(1).await;
        let journal = daemon.rig.journal.clone();
        let (web, by) = (daemon.rig.fleet().name, Author::Operator("wei".to_string()));
        let asked = journal.ask(&web, &Ask::CatchUp, &by, daemon.rig.clock.now()).await.unwrap();
        daemon.complete(1).await;
        let answer = journal.request(asked).await.unwrap().answer.map(|(_, answer)| answer);
        assert_eq!(answer, Some(Answer::Nobody("nobody is to be caught up with now".to_string())), "{provider}");

        let tags = vec![(crate::rig::TAG.0.to_string(), crate::rig::TAG.1.to_string())];
        let new = daemon.rig.world.lock().unwrap().add_instance(0, InstanceSpec { tags, ..Default::default() });
        let began = daemon.rig.clock.now();
        daemon.go_on_until(later(began, Duration::from_secs(2 * 3600))).await;
        let look = journal.late_looks().await.unwrap().remove(&web).unwrap();
        assert_eq!(look.new.iter().map(|id| id.as_str()).collect::<Vec<_>>(), [new.as_str()], "{provider}");
        assert!(look.at > began, "{provider}: {look:?}");
        assert_eq!(daemon.problems, Vec::<String>::new());
    }
}
