//! Whole rotations in the small world: with no faults each ends active; under faults, and after them, nobody stays down.

use super::world::{Came, World, refold};
use super::*;

const CLOUDS: [&str; 4] = ["lighthouse", "cvm", "ecs", "bcc"];

fn replay(cloud: &str, fleet: &str, seed: u64, faulty_for: u64) {
    let mut story = Story::new(cloud, fleet).tell("0 plan");
    let mut rotation = story.rotation();
    let mut world = World::new(&story, seed);
    let context = format!("{cloud} {fleet:?} seed {seed}");
    println!("{context}");
    world.faults = true;
    let mut came = world.drive(&mut story, &mut rotation, faulty_for);
    world.faults = false;
    for _ in 0..8 {
        if let Came::Ended(_) = came {
            break;
        }
        if rotation.held.is_some() {
            world.nobody_is_left_down(&story, &rotation);
            world.tell(&mut story, &mut rotation, "release");
        }
        came = world.drive(&mut story, &mut rotation, 4 * 3600);
        assert_ne!(came, Came::Nowhere, "{context}: {}", world.stuck(&rotation));
    }
    assert!(matches!(came, Came::Ended(_)), "{context}: {came:?} {:?}", rotation.held);
    world.nobody_is_left_down(&story, &rotation);
    refold(&story, &rotation);
    // A call that was lost long ago lands no more; nobody is down afterwards either.
    world.pass(900);
    world.nobody_is_left_down(&story, &rotation);
}

#[test]
fn without_faults_every_fleet_is_active_at_the_end() {
    for cloud in CLOUDS {
        for fleet in ["r", "r rrrr rrrs max=4", "rr rss max=2 soak=60", "s rr failures=9", "r r r r max=1"] {
            let mut story = Story::new(cloud, fleet).tell("0 plan");
            let mut rotation = story.rotation();
            let mut world = World::new(&story, 1);
            let mut came = world.drive(&mut story, &mut rotation, 4 * 3600);
            if fleet.starts_with('s') {
                assert_eq!((&came, &rotation.held), (&Came::Held, &Some(HoldReason::Canary)), "{cloud} {fleet}");
                world.tell(&mut story, &mut rotation, "release");
                came = world.drive(&mut story, &mut rotation, 4 * 3600);
            }
            assert_eq!(came, Came::Ended(Outcome::Completed), "{cloud} {fleet}");
            world.nobody_is_left_down(&story, &rotation);
            for (id, member) in rotation.members() {
                assert!(member.active || member.is_straggler(), "{cloud} {fleet} {id}: {member:?}");
            }
        }
    }
}

#[test]
fn after_any_faults_a_benign_world_brings_it_to_an_end_with_nobody_left_down() {
    for cloud in CLOUDS {
        for seed in 0..8 {
            replay(cloud, "r rrr rrs max=3 failures=2", seed, 300 + 20 * seed);
            replay(cloud, "rr rr max=1 failures=1 soak=60", 1000 + seed, 2000);
        }
    }
}
