//! What others delete while a rotation runs: its key pair and one of its machines, or all there is. Who is left is started
//! again; who is gone is believed gone, where there is nothing left to ask for on a person's word alone.

use rekeyd::clock::Clock as _;
use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::model::{Duration, JournalId, ProviderKind};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Allow, Author, Event, HoldReason, Plan, Rotation, STRANGE};
use rekeyd::sim::{Power, World};
use rekeyd::store::Journal as _;

use crate::pool;
use crate::rig::{Rig, Scenario, TAG, mark};

/// What came of one run.
#[derive(Default)]
struct Run {
    calls: usize,
    asked: usize,
    gone: usize,
}

/// The machines of the fleet that are there.
fn tagged(world: &World) -> Vec<String> {
    let is_ours = |tags: &[(String, String)]| tags.iter().any(|(key, value)| (key.as_str(), value.as_str()) == TAG);
    world.machines().filter(|(_, one)| is_ours(&one.tags)).map(|(_, one)| one.id.clone()).collect()
}

fn delete_pairs(world: &mut World) {
    let ours = |name: &str| name.starts_with(&mark().prefix());
    let ids: Vec<String> =
        world.key_pairs().filter(|(_, pair)| ours(&pair.name)).map(|(_, pair)| pair.id.clone()).collect();
    for id in ids {
        world.remove_key_pair(0, &id);
    }
}

/// One round in which this is deleted just before a call: the pairs and so many of the machines.
async fn at_call(provider: ProviderKind, call: usize, machines: usize) -> Run {
    let mut rig = Rig::new(Scenario { rounds: 1, refused: false, ..Scenario::of(provider) }, pool(), None);
    let world = rig.world.clone();
    rig.fuse.lend(
        call,
        Box::pin(async move {
            let mut world = world.lock().unwrap();
            delete_pairs(&mut world);
            // The first of them is the canary.
            for id in tagged(&world).into_iter().take(machines) {
                world.remove_instance(0, &id);
            }
        }),
    );
    let what = format!("{provider} at call {call}");
    let mut engine = rig.engine();
    let mut run = Run::default();
    let begun = rig.rotate_only(&mut engine).await;
    for tries in 0.. {
        assert!(tries < 30, "{what}: not done, {begun:?}\n{}", rig.story().await);
        let open = rig.journal.heads().await.unwrap().readable.into_iter().find(|head| head.ended.is_none());
        let Some(head) = open else { break };
        match head.plan {
            Plan::Rotate(_) => match engine.drive(head.id).await.unwrap() {
                Reached::Ended(_) => {}
                Reached::Held { reason, .. } => {
                    let rotation = engine.rotation(head.id).unwrap();
                    answer(&rig, rotation, reason, &mut run).await
                }
            },
            Plan::Retire(_) => retire(&rig, &mut engine, head.id, &mut run).await,
        }
        rig.clock.advance_to(later(rig.clock.now(), Duration::from_secs(60)));
    }
    let down = rig.world.lock().unwrap().machines().find_map(|(_, one)| {
        let is_down = one.first_power == Power::Running && !matches!(one.power, Power::Running | Power::Gone);
        is_down.then(|| one.id.clone())
    });
    assert_eq!(down, None, "{what}\n{}", rig.story().await);
    run.gone = rig.story().await.matches(r#""event":"gone""#).count();
    run.calls = rig.fuse.calls().len();
    run
}

/// A person answers a hold: what is gone is gone, and there is nothing to go on with.
async fn answer(rig: &Rig, rotation: &Rotation, reason: HoldReason, run: &mut Run) {
    let id = rotation.id;
    let is_held_for_it = matches!(&reason, HoldReason::Step { error, .. } if error.code == STRANGE);
    assert_eq!(reason.way_on(id).contains("--allow=gone"), is_held_for_it, "{reason}");
    if let Some(error) = rotation.strange(rig.clock.now()) {
        assert!(error.message.contains(&format!("`rekeyd release {id} --allow=gone`")), "{error}");
    }
    if is_held_for_it || rotation.strange(rig.clock.now()).is_some() {
        run.asked += 1;
        operate(rig, id, Event::Released { note: String::new(), allow: Some(Allow::Gone) }).await;
    }
    operate(rig, id, Event::AbandonRequested { note: String::new() }).await;
}

/// A retire journal that finds nothing says so once, and waits for a person's word.
async fn retire(rig: &Rig, engine: &mut Engine, id: JournalId, run: &mut Run) {
    rig.retire(engine).await.unwrap();
    let entries = rig.journal.read(id, 0).await.unwrap();
    let is_strange = |event: &Event| matches!(event, Event::Failed { error, .. } if error.code == STRANGE);
    let strange = entries.iter().filter(|entry| is_strange(&entry.event)).count();
    let word = |event: &Event| matches!(event, Event::Released { allow: Some(Allow::Gone), .. });
    let words = entries.iter().filter(|entry| word(&entry.event)).count();
    if strange > words && entries.iter().all(|entry| !matches!(entry.event, Event::Ended { .. })) {
        assert_eq!(strange, words + 1, "{}", rig.story().await);
        run.asked += 1;
        operate(rig, id, Event::Released { note: String::new(), allow: Some(Allow::Gone) }).await;
    }
}

async fn operate(rig: &Rig, id: JournalId, event: Event) {
    let head = rig.journal.head(id).await.unwrap();
    let by = Author::Operator("test".to_string());
    rig.journal.append(id, head.seq, &[event], &by, rig.clock.now()).await.unwrap();
}

/// Deleted at every call in turn.
async fn sweep(provider: ProviderKind, machines: usize, expect: impl Fn(usize, usize, usize) -> bool) {
    let calls = at_call(provider, usize::MAX, 0).await.calls;
    let (mut asked, mut gone) = (0, 0);
    for call in 0..calls {
        let run = at_call(provider, call, machines).await;
        asked += usize::from(run.asked > 0);
        gone += usize::from(run.gone > 0);
    }
    assert!(expect(calls, asked, gone), "{asked} of {calls} were asked, {gone} found somebody gone");
}

/// The canary and the pair: the others are seen, and need no word.
async fn one(provider: ProviderKind) {
    sweep(provider, 1, |calls, asked, gone| asked == 0 && gone > calls / 4).await;
}

/// All of it.
async fn all(provider: ProviderKind) {
    sweep(provider, usize::MAX, |calls, asked, gone| asked > calls / 4 && gone > calls / 4).await;
}

#[tokio::test]
async fn whose_pair_and_canary_are_deleted_is_started_again_on_lighthouse() {
    one(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn whose_pair_and_canary_are_deleted_is_started_again_on_cvm() {
    one(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn whose_pair_and_canary_are_deleted_is_started_again_on_ecs() {
    one(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn whose_pair_and_canary_are_deleted_is_started_again_on_bcc() {
    one(ProviderKind::BaiduBcc).await;
}

#[tokio::test]
async fn a_dismantled_fleet_ends_on_a_persons_word_on_lighthouse() {
    all(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn a_dismantled_fleet_ends_on_a_persons_word_on_cvm() {
    all(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn a_dismantled_fleet_ends_on_a_persons_word_on_ecs() {
    all(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn a_dismantled_fleet_ends_on_a_persons_word_on_bcc() {
    all(ProviderKind::BaiduBcc).await;
}
