//! What others do to a batch: a cloud that refuses it for one instance and yet does half of it, an owner who starts his
//! machines at the console while they are being bound. Nobody is disturbed twice for it, and no more than may be at once.

use rekeyd::model::{Duration, ProviderKind};
use rekeyd::sim::{Machine, Power, Progress};

use crate::pool;
use crate::rig::{HALF_DONE, Rig, Scenario};

/// A batch with somebody in it whom the cloud refuses; those before them are done. Nothing that is done is asked for again.
async fn half_done(provider: ProviderKind) {
    let mut refusals = 0;
    for seed in 1..=8 {
        // Whoever is refused may be of the canary: it is not alone there.
        let few = Scenario { canary: 2, rounds: 1, ..Scenario::of(provider) };
        let wide = Scenario { running: 6, unavailable_max: 5, batch_max: 6, ..few };
        let mut rig = Rig::new(Scenario { faults: HALF_DONE, seed, ..wide }, pool(), None);
        // A look shows at once what was done: whoever looks need not be told by a refusal.
        rig.world.lock().unwrap().settings.visibility_lag = Duration::ZERO;
        let report = rig.run().await;
        let mut problems = report.problems;
        {
            let world = rig.world.lock().unwrap();
            for (_, machine) in world.machines().filter(|(_, machine)| !rig.refused.contains(&machine.id)) {
                if machine.stops + machine.reboots > 1 {
                    problems.push(format!("{} went down {} times", machine.id, machine.stops + machine.reboots));
                }
            }
        }
        if rig.story().await.contains(r#""kind":"busy""#) {
            problems.push("asked again of one who is seen to be busy with it".to_string());
        }
        assert!(problems.is_empty(), "{provider} seed {seed}\n{}\n{problems:#?}", rig.story().await);
        refusals += rig.story().await.matches("\"excluded\"").count();
    }
    assert!(refusals >= 8, "{refusals} refusals");
}

/// Before each look at instances, all machines that were switched off are started at the console. (Between a look and its
/// call nobody could know.)
async fn woken(provider: ProviderKind) {
    let few = || Scenario {
        running: 2,
        stopped: 3,
        unavailable_max: 1,
        batch_max: 4,
        refused: false,
        rounds: 1,
        ..Scenario::of(provider)
    };
    let calls = Rig::new(few(), pool(), None).run().await.calls;
    let looks = |call: &str| ["DescribeInstances", "listByInstanceId"].iter().any(|look| call.contains(look));
    let looks: Vec<usize> = (0..calls.len()).filter(|call| looks(&calls[*call])).collect();
    for call in looks.iter().copied() {
        let mut rig = Rig::new(few(), pool(), None);
        let world = rig.world.clone();
        let wake = async move {
            let mut world = world.lock().unwrap();
            // The simulated console cuts off whatever is under way, which is none of this.
            let idle =
                |machine: &Machine| machine.operation.as_ref().is_none_or(|it| it.progress != Progress::Operating);
            let off = world.machines().filter(|(_, machine)| machine.power == Power::Stopped && idle(machine));
            let off = off.filter(|(_, machine)| machine.first_power == Power::Stopped);
            for id in off.map(|(_, machine)| machine.id.clone()).collect::<Vec<_>>() {
                world.set_power(0, &id, Power::Running);
            }
        };
        rig.fuse.lend(call, Box::pin(wake));
        let mut problems = rig.run().await.problems;
        // Their owner wants them so.
        problems.retain(|problem| !problem.ends_with("was stopped and is running"));
        assert!(problems.is_empty(), "{provider} woken at call {call}\n{}\n{problems:#?}", rig.story().await);
        assert_eq!(rig.fuse.hands_left(), 0);
    }
    assert!(looks.len() > 5, "{looks:?} of {calls:?}");
}

macro_rules! on_each_cloud {
    ($($half_done:ident $woken:ident $provider:ident;)*) => {$(
        #[tokio::test]
        async fn $half_done() {
            half_done(ProviderKind::$provider).await;
        }
        #[tokio::test]
        async fn $woken() {
            woken(ProviderKind::$provider).await;
        }
    )*};
}

on_each_cloud! {
    a_batch_half_done_disturbs_nobody_twice_on_lighthouse
        machines_started_at_the_console_are_not_taken_down_beyond_the_budget_on_lighthouse TencentLighthouse;
    a_batch_half_done_disturbs_nobody_twice_on_cvm
        machines_started_at_the_console_are_not_taken_down_beyond_the_budget_on_cvm TencentCvm;
    a_batch_half_done_disturbs_nobody_twice_on_ecs
        machines_started_at_the_console_are_not_taken_down_beyond_the_budget_on_ecs AlibabaEcs;
    a_batch_half_done_disturbs_nobody_twice_on_bcc
        machines_started_at_the_console_are_not_taken_down_beyond_the_budget_on_bcc BaiduBcc;
}
