//! Keys that are kept otherwise than in plain files: encrypted, by a program, in a Vault. The whole way, as an operator
//! goes it: check, rotate, where the key is, and whether it opens.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::QUICK;
use crate::stage::{Clouds, Stage};

/// The public half that `ssh-keygen` gets out of a key file with this passphrase, or what it says.
fn opened(file: &std::path::Path, passphrase: &str) -> Result<String, String> {
    let told = Command::new("ssh-keygen").args(["-y", "-P", passphrase, "-f"]).arg(file).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if told.status.success() { Ok(text(told.stdout)) } else { Err(text(told.stderr)) }
}

/// The line of the file that says who keeps the keys, replaced.
fn keep_by(stage: &Stage, custody: &str) {
    stage.edit(|text| {
        let line = text.lines().find(|line| line.starts_with("custody:")).unwrap();
        text.replace(line, &format!("custody: {custody}"))
    });
}

fn newest_key(stage: &Stage) -> serde_json::Value {
    stage.read(&["status"])["fleets"][0]["last"].clone()
}

#[test]
fn encrypted_keys_open_with_the_passphrase_alone_and_older_plain_ones_are_counted() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "alibaba-ecs", "");
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let plain = newest_key(&stage);
    assert!(plain["way_in"].is_null(), "{plain}");

    let (lib, phrase) = (stage.path("lib"), stage.path("phrase"));
    std::fs::write(&phrase, "correct horse battery\n").unwrap();
    std::fs::set_permissions(&phrase, PermissionsExt::from_mode(0o600)).unwrap();
    let sealed = format!(
        "{{ directory: {0}/keys, copies: [{0}/copy], encrypt: {{ passphrase: {{ file: {1} }} }} }}",
        lib.display(),
        phrase.display()
    );
    keep_by(&stage, &sealed);
    let check = stage.run(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.out.contains("custody.encrypt: kept plain: 1 of 1"), "{check:?}");

    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("(`ssh -i` asks for the passphrase of custody.encrypt)"), "{said:?}");
    let newest = newest_key(&stage);
    let file = std::path::PathBuf::from(newest["private_key"].as_str().unwrap());
    let public = opened(&file, "correct horse battery").unwrap();
    assert!(public.starts_with("ssh-rsa "), "{public}");
    let copy = lib.join("copy").join(file.file_name().unwrap());
    assert_eq!(opened(&copy, "correct horse battery").unwrap(), public);
    assert!(opened(&file, "wrong").unwrap_err().contains("incorrect passphrase"));
    let printed = format!("{said:?}{check:?}{}", stage.run(&["show", "web", "--json"]).out);
    assert!(!printed.contains("battery"), "{printed}");

    // A wrong passphrase is said so, and takes no key for lost.
    std::fs::write(&phrase, "another\n").unwrap();
    let check = stage.run(&["check"]);
    assert_eq!(check.code, 1, "{check:?}");
    assert!(check.err.contains("the passphrase of custody.encrypt does not open it"), "{check:?}");
    let drift = stage.run(&["drift", "web"]);
    assert_eq!(drift.code, 1, "{drift:?}");
    assert!(!drift.out.contains("missing_private_key"), "{drift:?}");
}

#[test]
fn a_program_keeps_the_keys_of_a_fleet_and_what_it_says_is_no_secret() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "alibaba-ecs", "");
    let (lib, keeper) = (stage.path("lib"), stage.path("keeper"));
    let script = format!(
        "#!/bin/sh\nset -u\numask 077\nd={0}/safe\nmkdir -p $d\n{{ echo \"$@\"; env; }} >>{0}/seen\ncase $1 in\n\
         put) cat >$d/.new.$2; ln $d/.new.$2 $d/$2 2>/dev/null || exit 2; rm $d/.new.$2;;\n\
         get) [ -e $d/$2 ] || exit 3; cat $d/$2;;\nlist) ls $d;;\ndestroy) rm -f $d/$2;;\nesac\n",
        lib.display()
    );
    std::fs::write(&keeper, script).unwrap();
    keep_by(&stage, &format!("{{ exec: {{ command: [/bin/sh, {}], timeout: 20s }} }}", keeper.display()));
    let planned = stage.planned();
    let before = stage.picture(&clouds);
    for _ in 1..=2 {
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(&format!("/bin/sh {} get rk", keeper.display())), "{said:?}");
    }
    let (newest, now) = (newest_key(&stage), stage.picture(&clouds));
    let name = newest["key_pair"].as_str().unwrap();
    assert!(planned.iter().all(|id| now[id].0 == before[id].0 && now[id].1.len() == 1), "{now:?}");
    assert!(opened(&lib.join("safe").join(name), "").unwrap().starts_with("ssh-rsa "));
    let seen = std::fs::read_to_string(lib.join("seen")).unwrap();
    assert!(seen.contains(&format!("put {name}\n")), "{seen}");
    let variables = seen.lines().filter_map(|line| line.split_once('=')).map(|(variable, _)| variable);
    for variable in variables {
        let own = ["PATH", "HOME", "LANG", "CREDENTIALS_DIRECTORY", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(own.contains(&variable), "{variable}");
    }
    let (drift, status) = (stage.run(&["drift", "web"]), stage.run(&["status"]));
    assert_eq!((drift.code, status.code), (0, 0), "{drift:?} {status:?}");
    assert!(status.out.contains("that command prints it"), "{status:?}");

    // It fails, and its words hold a key: the error does not.
    std::fs::write(&keeper, format!("cat {}/safe/{name} >&2; exit 1\n", lib.display())).unwrap();
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("exit code 1: (what it said is not shown"), "{said:?}");
    assert!(!said.err.contains("BEGIN"), "{said:?}");
}
