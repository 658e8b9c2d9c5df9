//! Journals by chance: whatever legal entries came in whatever order, the brain does not panic, counts right, says the
//! same twice, and finds its way to an end or a hold, even in a world that is not the one of the journal.

use super::world::{Came, Luck, World, recount, refold};
use super::*;

/// A legal entry by chance.
fn words(luck: &mut Luck) -> String {
    let id = ["a", "b", "c", "d", "e"][luck.of(5) as usize];
    let other = ["a", "b", "c", "d", "e"][luck.of(5) as usize];
    let state = ["r", "s", "c", "o", "r", "s"][luck.of(6) as usize];
    let key = ["old", "new", "alien", "old+more", ""][luck.of(5) as usize];
    let call = ["stop", "bind", "start", "reboot"][luck.of(4) as usize];
    let error = ["refused", "lost", "away", "throttled", "rubbish", "denied"][luck.of(6) as usize];
    match luck.of(24) {
        0 => "stored".into(),
        1 | 2 => "imported".into(),
        3..=7 => format!(">{call} {id}={state}/{key}@{}", luck.of(3)),
        8..=10 => format!("ok {call} {id} #q{}", luck.of(4)),
        11 | 12 => format!("{error} {call} {id} {other} +{}", luck.of(100)),
        13 => format!("{error} {call} 0 +{}", luck.of(100)),
        14 => format!("down {id}"),
        15 => format!("changing {id} {other}"),
        16 | 17 => format!("bound {id}={state}@{}", luck.of(3)),
        18 => format!("active {id}"),
        19 => format!("running {id} {other}"),
        20 => format!("out {id}"),
        21 => format!("gone {id}"),
        22 => ["held", "held:canary", "held:failures", "held:step"][luck.of(4) as usize].into(),
        _ => match luck.of(8) {
            0 => "abandon".into(),
            1 => format!("leave-off {id}"),
            _ => "release".into(),
        },
    }
}

#[test]
fn from_any_journal_a_benign_world_leads_to_an_end_or_a_hold() {
    for seed in 0..80 {
        let mut luck = Luck::new(seed);
        let cloud = ["lighthouse", "cvm", "ecs", "bcc"][luck.of(4) as usize];
        let mut story = Story::new(cloud, "r rr rs max=2 failures=1 soak=30").tell("0 plan");
        let mut rotation = story.rotation();
        let mut time = 1;
        for _ in 0..luck.of(60) {
            time += luck.of(30);
            let words = words(&mut luck);
            story = story.tell(&format!("{time} {words}"));
            rotation.apply(story.entries.last().unwrap()).unwrap();
            recount(&rotation);
            let next = rotation.next(at(time));
            assert_eq!(next, rotation.next(at(time)), "seed {seed}");
        }
        let mut rotation = refold(&story, &rotation);
        let mut world = World::new(&story, seed);
        world.now = time;
        if luck.one_in(2) {
            world.scatter();
        }
        world.budget_counts = false;
        let came = world.drive(&mut story, &mut rotation, 6 * 3600);
        assert_ne!(came, Came::Nowhere, "{cloud} seed {seed}: {}", world.stuck(&rotation));
    }
}
