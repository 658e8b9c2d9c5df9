//! Who was switched off through a whole rotation: told of, proven once it is back, and until then nothing that could still
//! open it is destroyed.

use serde_json::{Value, json};

use crate::guests::{GUESTS, daemons_page, each_cloud, events, gets_in, half, newest, ready, running, settled, stop};
use crate::stage::Clouds;

#[test]
fn a_machine_that_was_off_through_a_rotation_is_proven_once_it_is_back_and_only_then_its_old_key_is_destroyed() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let provider = stage.provider.as_str();
        assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{provider}");
        let (old, sleeper) = (half(stage, &newest(stage)), running(stage).swap_remove(1));
        clouds.post(&format!("/meddle?stopped={sleeper}"));

        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        let new = newest(stage);
        assert_eq!(stage.picture(&clouds)[&sleeper].0, "stopped", "{provider}: off it was and off it stays");
        let status = &stage.read(&["status", "web"])["fleets"][0];
        assert!(status["late"].as_array().unwrap().contains(&json!(sleeper)), "{provider}: {status:#}");
        let [retiring] = &status["retiring"].as_array().unwrap()[..] else { panic!("{provider}: {status:#}") };
        assert!(old.exists(), "{provider}: {status:#}");
        assert!(retiring["waits_for"].as_array().unwrap().contains(&json!(sleeper)), "{provider}: {retiring:#}");
        let told = stage.run(&["status", "web"]).out;
        assert!(told.contains(&sleeper) && told.contains("once all that had it are proven"), "{provider}: {told}");
        // Nothing comes of asking before it is back.
        let early = stage.run(&["catch-up", "web"]);
        assert!(early.code == 0 && old.exists() && early.out.contains(&sleeper), "{provider}: {early:?}");
        assert_eq!(newest(stage), new, "{provider}: {early:?}");

        // With all others that were bound while they were off: of each of them it is unknown what it takes.
        let late: Vec<String> =
            status["late"].as_array().unwrap().iter().map(|id| format!("running={}", id.as_str().unwrap())).collect();
        clouds.post(&format!("/meddle?{}", late.join("&")));
        // Two of the four have a daemon, which is asked.
        let daemon = ["alibaba-ecs", "baidu-bcc"].contains(&provider).then(|| {
            let page = daemons_page(stage);
            let daemon = stage.start(&["run"]);
            ready(stage, &page);
            daemon
        });
        let said = stage.run(&["catch-up", "web"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        settled(stage);
        if let Some(daemon) = daemon {
            stop(stage, daemon);
        }
        let proofs: Vec<Value> =
            events(stage, "verified").iter().flat_map(|one| one["proofs"].as_array().unwrap().clone()).collect();
        let proof = proofs.iter().find(|proof| proof["instance"] == *sleeper).unwrap();
        assert_eq!(proof["old_key"], "refused", "{provider}: {proof}");
        assert!(gets_in(&clouds, stage, &sleeper, &half(stage, &new)), "{provider}");
        let status = &stage.read(&["status", "web"])["fleets"][0];
        assert!(!status["late"].as_array().unwrap().contains(&json!(sleeper)), "{provider}: {status:#}");
        assert!(!old.exists(), "{provider}: {status:#}");
        let retired = stage.read(&["show", retiring["journal"].as_str().unwrap()]);
        assert_eq!(retired["outcome"], "retired", "{provider}: {retired:#}");
        assert_eq!(clouds.violations(), json!([]));
    });
}
