//! What is there for people: history by fleet, instance, key and time, live progress on a terminal, tables that fit it, a first
//! config file, completions and man pages. A terminal is a pseudo-terminal of script(1).

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::stage::{Clouds, Said, Stage, rekeyd, said};

/// The journals that a question finds, newest first: kind and key pair.
fn found(stage: &Stage, question: &[&str]) -> Vec<Value> {
    stage.read(&[&["history"], question].concat())["journals"].as_array().unwrap().clone()
}

#[test]
fn history_answers_by_fleet_instance_key_and_time() {
    let clouds = Clouds::open(&["--instances", "6", "--latency", "1ms", "--operation-time", "50ms"]);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    assert!(found(&stage, &[]).is_empty());
    assert_eq!(stage.run(&["history"]).out, "nothing was ever rotated from here\n");
    // One machine is switched off: bound, and not seen to take the key.
    let off = stage.planned().pop_first().unwrap();
    clouds.meddle(&format!("stopped={off}"));
    for _ in 1..=2 {
        assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    }
    let all = found(&stage, &[]);
    assert_eq!(all.len(), 3, "{all:#?}");
    assert_eq!(all, found(&stage, &["web"]));
    assert!(all.iter().all(|one| one["fleet"] == "web"));
    let (newest, first) = (&all[1], &all[2]);
    let text = |one: &Value| one.as_str().unwrap().to_string();

    // A key: by its pair's name, the fingerprint, its beginning, and the cloud's own id.
    let print = text(&first["rotation"]["fingerprint"]);
    let story = stage.read(&["show", &text(&first["journal"])]);
    let imported =
        story["entries"].as_array().unwrap().iter().find_map(|one| one["event"]["key_pair"].as_str()).unwrap();
    for key in [&text(&first["key_pair"]), &print, &print[..15], imported] {
        let of_key = found(&stage, &["--key", key]);
        let kinds: Vec<_> = of_key.iter().map(|one| (text(&one["kind"]), &one["key_pair"])).collect();
        let name = &first["key_pair"];
        assert_eq!(kinds, [("retirement".into(), name), ("rotation".into(), name)], "{key}");
    }
    assert!(found(&stage, &["--key", "SHA256:nobodys"]).is_empty());
    assert!(found(&stage, &["--key", "SHA256:"]).is_empty());

    // An instance: each rotation that had it in its plan, and what became of it.
    let instances = story["instances"].as_array().unwrap();
    let of = |state: &str| text(&instances.iter().find(|one| one["part"].get(state).is_some()).unwrap()["id"]);
    let (batched, excluded) = (of("batch"), of("excluded"));
    let fates: Vec<_> = found(&stage, &["--instance", &batched]).iter().map(|one| one["instance"].clone()).collect();
    assert_eq!(fates.len(), 2, "{fates:#?}");
    assert!(
        fates.iter().all(|fate| fate["phase"] == if batched == off { "straggler" } else { "active" }),
        "{fates:#?}"
    );
    let late = &found(&stage, &["--instance", &off])[0]["instance"];
    assert!(text(&late["says"]).contains("off or out of reach, not seen to take the key; bound 2"), "{late}");
    let left_out = &found(&stage, &["--instance", &excluded])[0]["instance"];
    assert_eq!(left_out["phase"], "left_out");
    assert!(text(&left_out["says"]).starts_with("left out by the plan: "), "{left_out}");
    let told = stage.run(&["history", "web", "--instance", &excluded]);
    assert!(told.out.contains("WHAT BECAME OF IT") && told.out.contains("left out by the plan: "), "{told:?}");
    assert!(found(&stage, &["--instance", "i-nobody"]).is_empty());

    // A time: what was open at some moment of it.
    let (begun, ended) = (text(&newest["begun"]), text(&first["ended"]));
    assert_eq!(found(&stage, &["--since", "1h"]).len(), 3);
    assert_eq!(found(&stage, &["--since", &begun]).len(), 2);
    assert_eq!(found(&stage, &["--until", &ended]).len(), 1);
    assert!(found(&stage, &["--until", "1d"]).is_empty());
    let refused = |arguments: &[&str], words: &str| {
        let said = stage.run(arguments);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(words), "{said:?} lacks {words:?}");
    };
    refused(&["history", "--since", "lately"], "--since: \"lately\" is no time: write 2026-11-01");
    refused(&["history", "--since", "1d", "--until", "2d"], "nothing lies between them");
    refused(&["history", "nought"], "there is no fleet");

    // A beginning of an id, as a narrow terminal shows it.
    let cut = format!("{}…", &text(&first["journal"])[..14]);
    let told = stage.run(&["show", &cut]);
    assert!(told.out.contains(&print) && told.out.contains(", completed "), "{told:?}");
    assert!(told.out.contains("switched off, so the key counts from the next boot"), "{told:?}");
    assert!(told.out.contains("not seen to take the key: "), "{told:?}");
}

/// What a verb shows on a terminal of 100 columns; stdout and stderr are one there.
fn on_terminal(stage: &Stage, arguments: &[&str], env: &[(&str, &str)]) -> Said {
    said(terminal(&stage.command(arguments), env).stdin(Stdio::null()).output().unwrap())
}

/// A command on such a terminal.
fn terminal(program: &Command, env: &[(&str, &str)]) -> Command {
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    // By env(1): a shell may set COLUMNS itself.
    let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line =
        format!("stty cols 100 rows 30; env -u NO_COLOR -u COLUMNS TERM=xterm {} {}", env.join(" "), line.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]);
    script.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
}

#[test]
fn a_rotation_on_a_terminal_is_a_bar_and_the_lines_that_matter() {
    let clouds = Clouds::open(&["--instances", "6", "--latency", "5ms", "--operation-time", "700ms"]);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let shown = on_terminal(&stage, &["rotate", "web"], &[]);
    assert_eq!(shown.code, 0, "{shown:?}");
    // The bar: how far it is, what is waited for, who is down.
    assert!(
        shown.out.contains("] 0/") && shown.out.contains("canary: ") && shown.out.contains("; 1 down: lhins-"),
        "{shown:?}"
    );
    for matters in
        ["rotation begun", "private key kept in custody", "canary: active: ", "rotation completed", "\u{1b}[32m"]
    {
        assert!(shown.out.contains(matters), "{matters}: {shown:?}");
    }
    for noise in ["the cloud took", "canary: binding lhins-"] {
        assert!(!shown.out.contains(noise), "{noise}: {shown:?}");
    }
    // Without colours, and where the terminal cannot move its cursor without a bar: then each step is a line.
    let plain = on_terminal(&stage, &["rotate", "web"], &[("NO_COLOR", "1")]);
    let colours = ["\u{1b}[2m", "\u{1b}[3", "\u{1b}[0m", "\u{1b}[1m"];
    assert!(plain.out.contains("] 0/") && !colours.iter().any(|colour| plain.out.contains(colour)), "{plain:?}");
    let dumb = on_terminal(&stage, &["rotate", "web"], &[("TERM", "dumb")]);
    assert!(!dumb.out.contains('\u{1b}') && dumb.out.contains("the cloud took the bind"), "{dumb:?}");

    // Tables fit: the terminal's size, or COLUMNS; a pipe gets all of it.
    let widest = |said: &Said| said.out.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
    let history = |env: &[(&str, &str)]| on_terminal(&stage, &["history"], &[env, &[("NO_COLOR", "1")]].concat());
    let name = stage.read(&["history"])["journals"][0]["key_pair"].as_str().unwrap().to_string();
    for (columns, lines) in [("", 100), ("80", 80), ("120", 120), ("200", 200)] {
        let shown = history(&[("COLUMNS", columns)]);
        assert!(widest(&shown) <= lines, "{columns}: {shown:?}");
        // Nothing is cut for that: a row becomes several lines.
        assert!(shown.out.contains(&name) && !shown.out.contains('…'), "{columns}: {shown:?}");
        let is_flat = shown.out.lines().any(|line| line.contains("BEGUN") && line.contains("KEY PAIR"));
        assert_eq!(is_flat, lines == 200, "{columns}: {shown:?}");
    }
    let piped = stage.command(&["history"]).env("COLUMNS", "60").output().unwrap();
    assert!(widest(&said(piped)) > 140);
}

#[test]
fn a_rotation_that_was_undone_and_one_of_a_compromised_key_say_so() {
    let clouds = Clouds::open(&["--instances", "6", "--latency", "1ms", "--operation-time", "50ms"]);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    stage.edit(|config| config.replace("grace: 0s", "grace: 7d"));
    let newest = || {
        let all = found(&stage, &["web"]);
        all.into_iter().find(|one| one["kind"] != "retirement").unwrap()["journal"].as_str().unwrap().to_string()
    };
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let first = newest();
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let undone = newest();
    let told = stage.run(&["show", &first]);
    assert!(told.out.contains("its key pair since: retirement ") && told.out.contains(", still open"), "{told:?}");
    assert_eq!(stage.run(&["rollback", &undone]).code, 0);
    let back = newest();
    let told = stage.run(&["show", &undone]);
    assert!(told.out.contains(&format!("undone by rollback {back}, completed ")), "{told:?}");
    let told = stage.run(&["show", &back]);
    assert!(told.out.contains(&format!("it undoes rotation {undone}, begun ")), "{told:?}");
    assert!(stage.run(&["show", &first]).out.contains("its key pair since: retirement "));
    assert_eq!(stage.run(&["rotate", "web", "--compromised"]).code, 0);
    let told = stage.run(&["show", "web"]);
    assert!(told.out.lines().next().unwrap().ends_with(", as the old key is in wrong hands"), "{told:?}");
}

#[test]
fn init_writes_a_file_that_only_lacks_its_secrets_and_never_writes_over_one() {
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name);
    let state = path("lib").display().to_string();
    let mut flags = vec!["init", "--provider", "alibaba-ecs", "--region", "cn-hangzhou", "--fleet", "shop"];
    flags.extend(["--tag", "role=web", "--tag", "env=prod", "--schedule", "0 0 4 * * SUN", "--state", &state]);
    let new = path("new.yaml");
    let run = |more: &[&str]| {
        let mut command = rekeyd(&new, &[&flags[..], more].concat());
        said(command.stdin(Stdio::null()).output().unwrap())
    };
    let written = run(&["--access-key-id", "env:SHOP_ID", "--access-key-secret", "credential:shop-secret"]);
    assert_eq!((written.code, written.err.as_str()), (0, ""), "{written:?}");
    assert!(written.out.contains(" check") && written.out.contains("plan shop"), "{written:?}");
    let text = std::fs::read_to_string(&new).unwrap();
    assert!(text.contains("tags: { env: prod, role: web }") && text.lines().any(|line| line.trim().starts_with('#')));
    // `check` misses the secrets and nothing else.
    let checked = said(rekeyd(&new, &["check"]).output().unwrap());
    assert_eq!(checked.code, 1, "{checked:?}");
    let problems: Vec<&str> = checked.err.lines().filter(|line| line.contains("new.yaml:")).collect();
    assert_eq!(problems.len(), 2, "{checked:?}");
    assert!(
        problems[0].contains("$SHOP_ID is not set") && problems[1].contains("credential shop-secret"),
        "{checked:?}"
    );
    let with = rekeyd(&new, &["check"]).env("SHOP_ID", "x").env("CREDENTIALS_DIRECTORY", room.path()).output();
    assert_eq!(said(with.unwrap()).code, 1);
    std::fs::write(path("shop-secret"), "y").unwrap();
    std::fs::set_permissions(path("shop-secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let with = rekeyd(&new, &["check"]).env("SHOP_ID", "x").env("CREDENTIALS_DIRECTORY", room.path()).output();
    let with = said(with.unwrap());
    assert_eq!((with.code, with.err.as_str()), (0, ""), "{with:?}");

    let refused = |more: &[&str], words: &str| {
        let said = run(more);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(words) && !said.err.contains("wJalr"), "{said:?} lacks {words:?}");
    };
    refused(&[], "is there already and is not written over");
    assert_eq!(std::fs::read_to_string(&new).unwrap(), text);
    std::os::unix::fs::symlink(path("nowhere"), path("link.yaml")).unwrap();
    let link = path("link.yaml").display().to_string();
    refused(&["--output", &link], "is there already");
    let other = path("other.yaml").display().to_string();
    refused(&["--output", &other, "--access-key-secret", "wJalrXUtnFEMI7K7MDENG"], "it may be a secret");
    refused(&["--output", &other, "--timezone", "Mars/Olympus"], "fleets.shop.timezone: \"Mars/Olympus\" is no zone");
    refused(&["--output", &path("no/where.yaml").display().to_string()], "/no is no directory: make it");
    assert!(!path("other.yaml").exists());
    let bare = said(rekeyd(&path("bare.yaml"), &["init"]).stdin(Stdio::null()).output().unwrap());
    assert!(bare.err.contains("--provider and --region and --tag (or --all-instances) missing"), "{bare:?}");
    let printed = run(&["--output", "-", "--verify", "none"]);
    assert!(printed.out.contains("verify: none") && printed.code == 0, "{printed:?}");
}

#[test]
fn init_on_a_terminal_asks_until_the_answers_are_good() {
    let room = tempfile::tempdir().unwrap();
    let new = room.path().join("new.yaml");
    let ask = |answers: &str| {
        let mut child = terminal(&rekeyd(&new, &["init"]), &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
        said(child.wait_with_output().unwrap())
    };
    let given_up = ask("alibaba-ecs\n");
    assert!(given_up.code == 1 && given_up.out.contains("the questions were not answered"), "{given_up:?}");
    assert!(!new.exists());
    let said = ask("aws\nalibaba-ecs\ncn-hangzhou\nshop\nrole=web env=prod\nnone\nops\n");
    assert_eq!(said.code, 0, "{said:?}");
    for words in ["Which cloud?", "\"aws\" is none of ", "[web]", "new.yaml is written"] {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }
    let text = std::fs::read_to_string(&new).unwrap();
    for line in ["  shop:", "    tags: { env: prod, role: web }", "    region: cn-hangzhou"] {
        assert!(text.lines().any(|have| have == line), "{line}: {text}");
    }
    assert!(text.contains("user: ops") && !text.contains("\n    schedule:"), "{text}");
}

#[test]
fn completions_and_man_pages_know_the_verbs() {
    let room = tempfile::tempdir().unwrap();
    let nowhere = room.path().join("none.yaml");
    let run = |arguments: &[&str]| said(rekeyd(&nowhere, arguments).output().unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        assert!(said.out.contains("catch-up") && said.out.contains("compromised"), "{shell}");
    }
    // What bash offers behind `rekeyd rotate web --c`, by the completions themselves.
    let bash = "source <(\"$0\" completions bash) && COMP_WORDS=(rekeyd rotate web --comp) COMP_CWORD=3 && \
                _rekeyd rekeyd --comp web && echo \"${COMPREPLY[@]}\"";
    let offered = said(Command::new("bash").args(["-c", bash, env!("CARGO_BIN_EXE_rekeyd")]).output().unwrap());
    assert_eq!((offered.code, offered.out.as_str()), (0, "--compromised\n"), "{offered:?}");
    assert_eq!(run(&["completions", "tcsh"]).code, 1);
    let pages = room.path().join("man");
    let to = pages.display().to_string();
    assert_eq!(run(&["man", &to]).code, 0);
    let rotate = std::fs::read_to_string(pages.join("rekeyd-rotate.1")).unwrap();
    assert!(rotate.starts_with(".ie") && rotate.contains("compromised"), "{rotate}");
    assert!(pages.join("rekeyd.1").exists() && !pages.join("rekeyd-man.1").exists());
    assert!(!run(&["--help"]).out.contains("\n  man "));
}
