//! Each machine is logged in to with the new key, the old one is refused, and the host is the one that was known.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::guests::{GUESTS, each_cloud, events, gets_in, half, newest, proven, running, wait_for};
use crate::stage::Clouds;

#[test]
fn two_rotations_on_every_cloud_are_proven_by_logins_and_the_old_key_is_refused() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (planned, before, running) = (stage.planned(), stage.picture(&clouds), running(stage));
        for round in 1..=2 {
            let said = stage.run(&["rotate", "web"]);
            assert_eq!(said.code, 0, "{} round {round}: {said:?}", stage.provider);
            let proofs = proven(stage);
            let ids: BTreeSet<&str> = proofs.iter().map(|proof| proof["instance"].as_str().unwrap()).collect();
            assert_eq!(ids, running.iter().map(String::as_str).collect(), "{}", stage.provider);
            for proof in &proofs {
                // All four clouds show the public halves of strangers' pairs; who had none, had none to be refused.
                let (_, had) = &before[proof["instance"].as_str().unwrap()];
                let known = round == 2 || !had.is_empty();
                assert_eq!(proof["old_key"], if known { "refused" } else { "not_known" }, "{proof}");
                assert!(proof["server"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH_"), "{proof}");
            }
            let key = half(stage, &newest(stage));
            for instance in &running {
                assert!(gets_in(&clouds, stage, instance, &key), "{} {instance}", stage.provider);
            }
            stage.assert_rotated(&clouds, &planned, &before);
        }
    });
}

#[test]
fn another_host_key_holds_until_it_is_trusted() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let running = running(stage);
        let mut rotate = stage.start(&["rotate", "web"]);
        wait_for(stage, "a pin of the canary", || {
            !stage.read_or_null(&["show", "web"])["entries"].is_null() && !events(stage, "pinned").is_empty()
        });
        clouds.post(&format!("/hostkey?instance={}", running[0]));
        assert_eq!(rotate.code_within(Duration::from_secs(60)), Some(3), "{}: {}", stage.provider, stage.log());
        assert!(stage.log().contains(&format!("rekeyd trust {}", running[0])), "{}", stage.log());
        // It is no failure: nobody is excluded.
        assert_eq!(events(stage, "excluded"), Vec::<Value>::new());
        let said = stage.run(&["trust", &running[1]]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(&format!("held for: {}", running[0])), "{said:?}");
        let said = stage.run(&["trust", &running[0], "--note", "re-installed by hand"]);
        assert_eq!(said.code, 0, "{said:?}");
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{}: {said:?}", stage.provider);
        assert_eq!(proven(stage).len(), running.len());
    });
}

#[test]
fn a_machine_made_anew_from_its_image_is_pinned_anew_with_an_entry() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        assert_eq!(stage.run(&["rotate", "web"]).code, 0);
        let running = running(stage);
        clouds.post(&format!("/reimage?instance={}", running[1]));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{}: {said:?}", stage.provider);
        let hosts: Vec<Value> =
            events(stage, "pinned").iter().flat_map(|event| event["hosts"].as_array().unwrap().clone()).collect();
        let anew: Vec<&Value> =
            hosts.iter().filter(|host| host["reimaged"] == true).map(|host| &host["instance"]).collect();
        assert_eq!(anew, [&Value::from(running[1].as_str())], "{}", stage.provider);
        assert_eq!(proven(stage).len(), running.len());
    });
}
