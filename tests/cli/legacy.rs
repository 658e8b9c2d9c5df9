//! CVM by its legacy endpoint: the real program against the simulator on real sockets.

use super::stage::{Clouds, Stage, said};

/// How many calls a cloud heard, and how many of them by the legacy endpoint.
fn calls(clouds: &Clouds) -> (u64, u64) {
    let state = clouds.state("tencent-cvm");
    let all = state["calls"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    (all, state["legacy_calls"].as_u64().unwrap())
}

#[test]
fn a_wrong_secret_is_told_as_one_in_either_shape() {
    // Without a fault half of the refusals come flat: several looks see both.
    let clouds = Clouds::open(&["--instances", "2", "--latency", "1ms"]);
    let stage = Stage::of(&clouds, "tencent-cvm", "");
    stage.edit(|text| text.replace("provider: tencent-cvm\n", "provider: tencent-cvm\n    api: legacy\n"));
    let good = stage.run(&["check", "--online"]);
    assert!(good.code == 0 && good.out.contains("credentials: the cloud takes them"), "{good:?}");
    let mut shapes = [false, false];
    for _ in 0..40 {
        let output = stage.command(&["check", "--online"]).env("THE_SECRET", "an-entirely-wrong-one").output().unwrap();
        let refused = said(output);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.out.contains("see that the access key is enabled"), "{refused:?}");
        shapes[usize::from(refused.out.contains("4100"))] = true;
        if shapes == [true, true] {
            break;
        }
    }
    assert_eq!(shapes, [true, true], "wrapped and flat");
}

#[test]
fn rotations_by_the_legacy_endpoint_and_by_the_current_one_follow_each_other() {
    // A third of the answers comes in the endpoint's oldest shape.
    let clouds =
        Clouds::open(&["--instances", "8", "--latency", "5ms", "--operation-time", "500ms", "--faults", "flat=0.33"]);
    let stage = Stage::of(&clouds, "tencent-cvm", "");
    stage.edit(|text| text.replace("provider: tencent-cvm\n", "provider: tencent-cvm\n    api: v3\n"));
    let before = stage.picture(&clouds);
    for (from, api) in [("v3", "legacy"), ("legacy", "legacy-sha1"), ("legacy-sha1", "v3")] {
        stage.edit(|text| text.replace(&format!("    api: {from}\n"), &format!("    api: {api}\n")));
        let (heard, by_legacy) = calls(&clouds);
        let planned = stage.planned();
        let said = stage.run(&["rotate", "web"]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{api}: {said:?}");
        stage.assert_rotated(&clouds, &planned, &before);
        let (heard_now, by_legacy_now) = calls(&clouds);
        let heard = heard_now - heard;
        assert!(heard > 20, "{api}: {heard}");
        assert_eq!(by_legacy_now - by_legacy, if api == "v3" { 0 } else { heard }, "{api}");
    }
    let history = stage.read(&["history", "web"]);
    let rotations = history["journals"].as_array().unwrap().iter().filter(|one| one["kind"] == "rotation");
    assert!(
        rotations.clone().count() == 3 && rotations.clone().all(|one| one["outcome"] == "completed"),
        "{history:#}"
    );
}
