//! Credentials of another account, from any call on: a token file that is rendered wrongly, a role that was changed. Nothing
//! of ours is there; nothing of it counts as gone, and no private half dies, no start is forgotten on that account's word.

use rekeyd::clock::Clock as _;
use rekeyd::model::{Duration, ProviderKind};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Allow, Author, Event, HoldReason, Plan};
use rekeyd::store::Journal as _;

use crate::pool;
use crate::rig::{Rig, Scenario};

/// What came of one run.
#[derive(Default)]
struct Run {
    calls: Vec<String>,
    /// Requests that the other account answered.
    elsewhere: usize,
    held: bool,
}

/// The other account answers from a call on, until so many calls later, or until everything stands still and a person sees what is wrong.
async fn at_call(provider: ProviderKind, call: usize, back: usize) -> Run {
    at_calls(provider, &[(call, back)]).await
}

/// The same, several times.
async fn at_calls(provider: ProviderKind, times: &[(usize, usize)]) -> Run {
    let (call, back) = times[times.len() - 1];
    let scenario = Scenario { rounds: 2, refused: false, stopped: 0, by_login: true, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    for (call, back) in times {
        let (there, here) = (rig.fuse.clone(), rig.fuse.clone());
        rig.fuse.lend(*call, Box::pin(async move { there.other_account(true) }));
        rig.fuse.lend(call + back, Box::pin(async move { here.other_account(false) }));
    }
    let mut run = Run::default();
    let what = format!("{provider} at call {call}, back {back}");
    let mut engine = rig.engine();
    let mut tries = 0;
    while rig.completed().await < rig.scenario.rounds || !retired(&rig).await {
        tries += 1;
        assert!(tries < 30, "{what}: not done\n{}", rig.story().await);
        if call % 2 == 1 {
            allow_destruction(&rig).await;
        }
        let done = match rig.completed().await < rig.scenario.rounds {
            true => rig.rotate(&mut engine).await,
            false => rig.retire(&mut engine).await.map_err(|error| error.to_string()),
        };
        // A person looks, and puts the credentials right.
        rig.fuse.other_account(false);
        rig.clock.advance_to(later(rig.clock.now(), Duration::from_secs(60)));
        // Who was refused by the other account hangs on the old pair still: the next rotation takes it along.
        if tries % 6 == 0 && rig.completed().await == rig.scenario.rounds {
            rig.scenario.rounds += 1;
        }
        let Some(open) = rig.open_rotation().await.filter(|_| done.is_err()) else { continue };
        let held = rig.journal.read(open, 0).await.unwrap().into_iter().rev().find_map(|entry| match entry.event {
            Event::Held { reason } => Some(reason),
            _ => None,
        });
        run.held |= held.is_some();
        match held {
            // The pair was imported over there, or the canary was asked for over there: of no use to this rotation.
            Some(HoldReason::KeyMismatch | HoldReason::Canary) => {
                rig.operate(Event::AbandonRequested { note: String::new() }).await
            }
            Some(_) => rig.operate(Event::Released { note: String::new(), allow: None }).await,
            None => {}
        }
        if let Some(HoldReason::KeyMismatch | HoldReason::Canary) = held {
            rig.scenario.rounds += 1;
        }
    }
    let story = rig.story().await;
    for head in rig.journal.heads().await.unwrap().readable {
        let entries = rig.journal.read(head.id, 0).await.unwrap();
        assert!(!entries.iter().any(|entry| matches!(entry.event, Event::Gone { .. })), "{what}: gone\n{story}");
    }
    assert_eq!(rig.switched_off(), Vec::<String>::new(), "{what}\n{story}");
    let mut problems = rig.fuse.broken();
    problems.extend(rig.unkept().await);
    assert!(problems.is_empty(), "{what}\n{story}\n{problems:#?}");
    run.calls = rig.fuse.calls();
    run.elsewhere = rig.fuse.elsewhere();
    run
}

/// A person lets the private halves of all open retire journals be destroyed without a proof by login: no word on whose account
/// it is that answers.
async fn allow_destruction(rig: &Rig) {
    for head in rig.journal.heads().await.unwrap().readable {
        if matches!(head.plan, Plan::Retire(_)) && head.ended.is_none() {
            let event = Event::Released { note: String::new(), allow: Some(Allow::Destroy) };
            let by = Author::Operator("test".to_string());
            rig.journal.append(head.id, head.seq, &[event], &by, rig.clock.now()).await.unwrap();
        }
    }
}

/// Whether every retire journal has ended.
async fn retired(rig: &Rig) -> bool {
    let heads = rig.journal.heads().await.unwrap().readable;
    heads.iter().all(|head| matches!(head.plan, Plan::Rotate(_)) || head.ended.is_some())
}

async fn sweep(provider: ProviderKind) {
    let calls = at_call(provider, usize::MAX - 1_000, 1).await.calls.len();
    let (mut elsewhere, mut held) = (0, 0);
    for call in 0..calls {
        let back = [150, 3, 40][call % 3];
        let run = at_call(provider, call, back).await;
        elsewhere += usize::from(run.elsewhere > 0);
        held += usize::from(run.held);
    }
    assert!(
        elsewhere > calls / 3 && held > 3,
        "{elsewhere} runs met the other account, {held} were held, of {calls} calls"
    );
}

/// The first import lands in the other account, which is back later: its pair is shown there, under the same name.
async fn landed(provider: ProviderKind) {
    let calls = at_call(provider, usize::MAX - 1_000, 1).await.calls;
    let is_import = |call: &&String| call.contains("ImportKeyPair");
    let import = calls.iter().position(|call| is_import(&call)).unwrap();
    // It answers that call alone, or also the questions after it: what there is of the pair, and of the machines.
    for back in [1, 4, 5] {
        let landed = at_calls(provider, &[(import, back), (usize::MAX - 1_000, 1)]).await;
        assert!(landed.elsewhere > 0);
        assert!(landed.calls.iter().filter(is_import).count() > 2, "one in vain, in two rounds");
        // Not at once again: three changes within the questions of one step are more than it can tell.
        for call in (import + back + 3..landed.calls.len()).step_by(if back == 1 { 2 } else { 9 }) {
            at_calls(provider, &[(import, back), (call, 150)]).await;
        }
    }
}

#[tokio::test]
async fn a_pair_that_was_imported_into_another_account_is_no_witness_of_ours_on_ecs() {
    landed(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn a_pair_that_was_imported_into_another_account_is_no_witness_of_ours_on_cvm() {
    landed(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn the_word_of_another_account_ends_no_key_and_no_debt_on_lighthouse() {
    sweep(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn the_word_of_another_account_ends_no_key_and_no_debt_on_cvm() {
    sweep(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn the_word_of_another_account_ends_no_key_and_no_debt_on_ecs() {
    sweep(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn the_word_of_another_account_ends_no_key_and_no_debt_on_bcc() {
    sweep(ProviderKind::BaiduBcc).await;
}
