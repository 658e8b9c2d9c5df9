//! What holds a rollout back, by the real program: windows, `--force`, hooks that are real programs.

use super::stage::{Clouds, Stage};

#[test]
fn a_rotation_outside_all_windows_is_forced_by_name_and_its_hooks_are_run_around_each_batch() {
    let clouds = Clouds::open(&super::QUICK);
    let told = tempfile::tempdir().unwrap();
    let file = told.path().join("told");
    let hook = |name: &str| {
        format!(
            "{name}: {{ command: [sh, -c, 'echo $REKEYD_FLEET $REKEYD_HOOK $REKEYD_BATCH $(wc -l) >> {}'] }}",
            file.display()
        )
    };
    let (before, after) = (hook("before_batch"), hook("after_batch"));
    let more = format!("    freeze: [2020-01-01..2098-12-31]\n    hooks: {{ {before}, {after} }}\n");
    let stage = Stage::of(&clouds, "alibaba-ecs", &more);

    let refused = stage.run(&["rotate", "web"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for words in ["no maintenance window is open", "none comes within two years", "`rekeyd rotate web --force=window`"]
    {
        assert!(refused.err.contains(words), "{words} in {refused:?}");
    }
    let unknown = stage.run(&["rotate", "web", "--force=banana"]);
    assert!(unknown.code == 1 && unknown.err.contains("there are size-change, window"), "{unknown:?}");
    let planned = stage.run(&["plan", "web"]);
    assert!(planned.code == 2 && planned.out.contains("--force=window"), "{planned:?}");
    assert!(!file.exists(), "a hook was run for nothing");

    let rotated = stage.run(&["rotate", "web", "--force=window"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let told = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() >= 4 && lines.len().is_multiple_of(2), "{told}");
    assert_eq!(lines[..2], ["web before_batch 0 1", "web after_batch 0 1"]);
    for (batch, pair) in lines.chunks(2).enumerate() {
        let of = |hook: &str| format!("web {hook} {batch} ");
        assert!(pair[0].starts_with(&of("before_batch")) && pair[1].starts_with(&of("after_batch")), "{told}");
    }
}

#[test]
fn a_hook_that_fails_holds_the_rotation_with_its_last_words_and_the_way_on() {
    let clouds = Clouds::open(&super::QUICK);
    let hook = "    hooks: { before_batch: { command: [sh, -c, 'echo the pool is not healthy; exit 9'] } }\n";
    let stage = Stage::of(&clouds, "tencent-cvm", hook);
    let held = stage.run(&["rotate", "web"]);
    assert_eq!(held.code, 3, "{held:?}");
    let words = "canary: the before_batch hook failed: exit code 9: the pool is not healthy";
    assert!(held.out.contains(words) && held.out.contains("runs it again"), "{held:?}");
    let status = stage.read(&["status"]);
    let open = &status["fleets"][0]["open"];
    assert_eq!(open["held_because"], words);
    assert!(open["way_on"].as_str().unwrap().contains("`rekeyd release "), "{open}");
    assert_eq!(open["owed_starts"].as_array().unwrap().len(), 0);
}
