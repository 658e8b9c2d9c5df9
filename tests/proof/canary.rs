//! Machines that refuse the new key: the rotation stops by itself, nobody else is touched, and `rollback` brings them back.

use serde_json::Value;

use crate::guests::{GUESTS, each_cloud, gets_in, half, newest, running, switched_off};
use crate::stage::{Clouds, Picture, Stage};

#[test]
fn a_canary_that_refuses_the_new_key_holds_and_nobody_else_is_touched() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (before, running) = (stage.picture(&clouds), running(stage));
        clouds.post(&format!("/meddle?never-accepts={}", running[0]));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 3, "{}: {said:?}", stage.provider);
        assert!(said.out.contains("it refuses the new key"), "{said:?}");
        assert!(said.out.contains("nobody in the canary batch"), "{said:?}");
        let now = stage.picture(&clouds);
        for (id, (state, keys)) in &before {
            let (state_now, keys_now) = &now[id];
            assert_eq!(state_now, state, "{}: power of {id}", stage.provider);
            assert_eq!(keys_now == keys, *id != running[0], "{}: keys of {id}", stage.provider);
        }
    });
}

/// Has the next canary ignore what is bound, and rotates into the hold that comes of it: the rotation's id and the canary's.
fn held_after_the_canary(clouds: &Clouds, stage: &Stage) -> (String, String) {
    let canary = running(stage).swap_remove(0);
    clouds.post(&format!("/meddle?never-accepts={canary}"));
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 3, "{}: {said:?}", stage.provider);
    let open = &stage.read(&["status", "web"])["fleets"][0]["open"];
    let id = open["rotation"].as_str().unwrap().to_string();
    assert!(said.out.contains(&format!("`rekeyd rollback {id}`")), "{said:?}");
    assert!(open["way_on"].as_str().unwrap().contains(&format!("`rekeyd rollback {id}`")), "{open:#}");
    (id, canary)
}

#[test]
fn a_canary_that_refuses_the_new_key_is_rolled_back_to_its_old_one_and_nobody_is_off() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let provider = &stage.provider;
        let (planned, at_first) = (stage.planned(), stage.picture(&clouds));
        assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{provider}");
        let (old, before, everybody) = (half(stage, &newest(stage)), stage.picture(&clouds), running(stage));
        let (id, canary) = held_after_the_canary(&clouds, stage);
        let refused = half(stage, &newest(stage));
        assert_ne!(
            stage.picture(&clouds)[&canary].1,
            before[&canary].1,
            "{provider}: the cloud says that it was bound"
        );
        assert!(gets_in(&clouds, stage, &canary, &old), "{provider}: the guest ignores the bind");

        let said = stage.run(&["rollback", &id]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        assert_eq!(stage.picture(&clouds), before, "{provider}: {said:?}");
        for instance in &everybody {
            assert!(gets_in(&clouds, stage, instance, &old), "{provider} {instance}: {said:?}");
        }
        let status = &stage.read(&["status", "web"])["fleets"][0];
        assert_eq!(status["last"]["undoes"], Value::from(id.as_str()), "{provider}: {status:#}");
        assert_eq!(status["retiring"], serde_json::json!([]), "{provider}: {status:#}\n{said:?}");
        assert!(old.exists() && !refused.exists(), "{provider}: the refused key is left: {said:?}");
        let again = stage.run(&["rollback", &id]);
        assert!(again.code == 1 && again.err.contains("nothing is left to be undone"), "{provider}: {again:?}");

        if provider == "alibaba-ecs" {
            return; // It shows a boot by its minute alone: each rotation waits for the next one.
        }
        // Put right, it is rotated like everybody else.
        clouds.post(&format!("/meddle?well={canary}"));
        let last = stage.run(&["rotate", "web"]);
        assert_eq!(last.code, 0, "{provider}: {last:?}");
        stage.assert_rotated(&clouds, &planned, &at_first);
        assert!(!gets_in(&clouds, stage, &canary, &old), "{provider}");
    });
}

#[test]
fn a_canary_of_a_first_rotation_is_rolled_back_to_a_strangers_key_that_it_had() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (provider, before) = (&stage.provider, stage.picture(&clouds));
        let (id, canary) = held_after_the_canary(&clouds, stage);
        let said = stage.run(&["rollback", &id]);
        let keys = |picture: &Picture| picture[&canary].1.clone();
        let now = stage.picture(&clouds);
        assert_eq!(switched_off(stage, &clouds, &before), Vec::<String>::new(), "{provider}: {said:?}");
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        assert!(keys(&now).is_subset(&keys(&before)) && keys(&now).len() == 1, "{provider}: {said:?}");
        let others = |picture: &Picture| {
            picture
                .iter()
                .filter(|(id, _)| **id != canary)
                .map(|(id, how)| (id.clone(), how.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(others(&now), others(&before), "{provider}: {said:?}");
        assert_eq!(stage.read(&["status", "web"])["fleets"][0]["open"], Value::Null, "{provider}: {said:?}");
    });
}

#[test]
fn a_budget_of_two_holds_at_the_third_bad_machine_and_nobody_is_left_switched_off() {
    let clouds = Clouds::open(&["--instances", "16", "--latency", "3ms", "--operation-time", "400ms", "--sshd"]);
    each_cloud(&clouds, |stage| {
        stage.edit(|config| {
            config.replace("batch_max: 4", "batch_max: 1").replace("failures_max: 20%", "failures_max: 2")
        });
        let (before, running) = (stage.picture(&clouds), running(stage));
        let bad = &running[1..5];
        clouds.post(&format!(
            "/meddle?{}",
            bad.iter().map(|id| format!("never-accepts={id}")).collect::<Vec<_>>().join("&")
        ));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 3, "{}: {said:?}", stage.provider);
        assert!(said.out.contains("3 instances failed, failures_max allows 2"), "{said:?}");
        assert_eq!(switched_off(stage, &clouds, &before), Vec::<String>::new(), "{}", stage.provider);
        let touched: Vec<String> = {
            let now = stage.picture(&clouds);
            running.iter().filter(|id| now[*id].1 != before[*id].1).cloned().collect()
        };
        assert_eq!(
            touched,
            running[..4],
            "{}: one batch after another, and none after the third failure",
            stage.provider
        );
    });
}
