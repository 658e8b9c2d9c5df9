//! The proof by login against real OpenSSH servers, against ports that are none, and the same contract for the probe in
//! memory. tests/run installs openssh-server; without it these tests fail and say so.

#![allow(clippy::unwrap_used)] // tests are exempt, but clippy sees that in test functions only

mod hostile;
mod sshd;

use std::sync::Arc;
use std::time::Duration;

use rekeyd::clock::SystemClock;
use rekeyd::model::{PrivateKey, PublicKey};
use rekeyd::ssh::{Guest, HostKey, Jump, Login, LoginProbe, Memory, Seen, SshProbe, Target, generate};
use sshd::{Owner, Setup, Sshd};

fn probe() -> SshProbe {
    SshProbe::new(Arc::new(SystemClock))
}

fn key(bits: u16) -> PrivateKey {
    generate(bits, "probe").unwrap()
}

/// An Ed25519 key, as a stranger's old one may be.
fn ed25519(seed: u8) -> PrivateKey {
    use ssh_key::private::{Ed25519Keypair, KeypairData};
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32]));
    let text = ssh_key::PrivateKey::new(pair, "").unwrap().to_openssh(ssh_key::LineEnding::LF).unwrap();
    PrivateKey::parse(text).unwrap()
}

fn why(login: Login) -> String {
    match login {
        Login::Unreachable { why } => why,
        other => panic!("{other:?}"),
    }
}

/// Checks that a login is unreachable for a reason with all of these words.
fn check_why(login: Login, expect: &[&str]) {
    let why = why(login);
    assert!(expect.iter().all(|word| why.contains(word)), "{why:?} has not all of {expect:?}");
}

/// A machine that takes `taken` and nothing else, and one that nobody listens at.
struct Scene<'a> {
    probe: &'a dyn LoginProbe,
    target: Target,
    host_key: HostKey,
    taken: &'a PrivateKey,
    nowhere: Target,
}

async fn keeps_the_contract(scene: Scene<'_>) {
    let Scene { probe, target, host_key, taken, nowhere } = scene;
    let (other, stranger) = (key(2048), ed25519(9));
    let seen = probe.host_key(&target, None).await.unwrap();
    assert_eq!(seen.host_key, host_key);
    assert!(seen.server.starts_with("SSH-2.0-"), "{}", seen.server);
    let wrong = HostKey::of(stranger.public());
    for pin in [None, Some(&host_key)] {
        assert_eq!(probe.login(&target, pin, taken).await, Login::Accepted(seen.clone()));
        assert_eq!(probe.login(&target, pin, &other).await, Login::Refused(seen.clone()));
        assert_eq!(probe.login(&target, pin, &stranger).await, Login::Refused(seen.clone()));
        assert_eq!(probe.offer(&target, pin, taken.public()).await, Login::Accepted(seen.clone()));
        assert_eq!(probe.offer(&target, pin, other.public()).await, Login::Refused(seen.clone()));
        assert_eq!(probe.offer(&target, pin, stranger.public()).await, Login::Refused(seen.clone()));
    }
    assert_eq!(probe.login(&target, Some(&wrong), taken).await, Login::WrongHost(seen.clone()));
    assert_eq!(probe.offer(&target, Some(&wrong), taken.public()).await, Login::WrongHost(seen.clone()));
    let nobody = Target { user: "no-such-user".into(), ..target.clone() };
    assert_eq!(probe.login(&nobody, None, taken).await, Login::Refused(seen.clone()));

    let place = format!("{}:{}: connection refused", nowhere.host, nowhere.port);
    check_why(probe.login(&nowhere, None, taken).await, &[&place]);
    check_why(probe.offer(&nowhere, None, taken.public()).await, &[&place]);
    assert!(probe.host_key(&nowhere, None).await.unwrap_err().why.starts_with(&place));

    // Through a jump host, which is the machine itself.
    let through = |jump: Jump, target: &Target| Target { jump: Some(Box::new(jump)), ..target.clone() };
    let jump = Jump { target: target.clone(), key: taken.clone(), pinned: Some(host_key.clone()) };
    let by = through(jump.clone(), &target);
    assert_eq!(probe.host_key(&by, None).await.unwrap(), seen);
    assert_eq!(probe.login(&by, Some(&host_key), taken).await, Login::Accepted(seen.clone()));
    assert_eq!(probe.login(&by, Some(&host_key), &other).await, Login::Refused(seen.clone()));
    assert_eq!(probe.login(&by, Some(&wrong), taken).await, Login::WrongHost(seen.clone()));
    assert_eq!(probe.offer(&by, None, other.public()).await, Login::Refused(seen.clone()));
    let lost = through(jump.clone(), &nowhere);
    let place = format!("{}:{}: the jump host gets no connection", nowhere.host, nowhere.port);
    check_why(probe.login(&lost, None, taken).await, &[&place]);
    let name = format!("jump host {}:{}: ", target.host, target.port);
    let shut = through(Jump { key: other.clone(), ..jump.clone() }, &target);
    check_why(probe.login(&shut, None, taken).await, &[&name, "refuses its key for"]);
    let false_host = through(Jump { pinned: Some(wrong.clone()), ..jump.clone() }, &target);
    check_why(probe.login(&false_host, None, taken).await, &[&name, "not the pinned one"]);
    let gone = through(Jump { target: nowhere.clone(), ..jump.clone() }, &target);
    let name = format!("jump host {}:{}: connection refused", nowhere.host, nowhere.port);
    check_why(probe.login(&gone, None, taken).await, &[&name]);
    let twice = through(Jump { target: gone, ..jump }, &target);
    let why = why(probe.login(&twice, None, taken).await);
    assert!(why.starts_with(&name), "{why}");
}

/// A port that nobody listens at, and an address that nobody else uses.
fn nowhere() -> Target {
    let port = std::net::TcpListener::bind("127.99.98.97:0").unwrap().local_addr().unwrap().port();
    Target::new("127.99.98.97", port, "root")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_keeps_the_contract_as_root_and_as_an_ordinary_user() {
    for owner in [Owner::Us, Owner::Ordinary] {
        let (server, taken) = (Sshd::start(&Setup { owner, ..Setup::default() }), key(2048));
        server.take(&[taken.public()]);
        let (target, host_key) = (server.target(), server.host_key("ed25519"));
        keeps_the_contract(Scene { probe: &probe(), target, host_key, taken: &taken, nowhere: nowhere() }).await;
        server.wait("every connection ends", |server| server.running() == 0);
    }
}

#[tokio::test]
async fn the_memory_keeps_the_contract() {
    let (memory, taken) = (Memory::new(), key(2048));
    let host_key = HostKey::of(ed25519(1).public());
    let target = Target::new("10.0.0.1", 22, "root");
    memory.set("10.0.0.1", 22, Guest::new(host_key.clone()).taking("root", taken.public()));
    let nowhere = Target::new("10.0.0.2", 22, "root");
    keeps_the_contract(Scene { probe: &memory, target: target.clone(), host_key, taken: &taken, nowhere }).await;
    memory.remove("10.0.0.1", 22);
    check_why(memory.login(&target, None, &taken).await, &["10.0.0.1:22: connection refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_each_size_log_in_once_they_are_taken_and_no_longer_when_they_are_replaced() {
    let server = Sshd::start(&Setup { owner: Owner::Ordinary, ..Setup::default() });
    let target = server.target();
    let keys = [key(2048), key(3072), key(4096), ed25519(5)];
    for (at, new) in keys.iter().enumerate() {
        // Read back, as from custody.
        let new = PrivateKey::parse(zeroize::Zeroizing::new(new.expose().to_string())).unwrap();
        assert!(matches!(probe().login(&target, None, &new).await, Login::Refused(_)));
        server.take(&[new.public()]);
        assert!(matches!(probe().login(&target, None, &new).await, Login::Accepted(_)));
        if let Some(old) = at.checked_sub(1).map(|old| keys[old].public()) {
            assert!(matches!(probe().offer(&target, None, old).await, Login::Refused(_)));
            server.take(&[new.public(), old]);
            assert!(matches!(probe().offer(&target, None, old).await, Login::Accepted(_)));
        }
    }
    let log = server.log();
    assert!(log.contains("Accepted publickey") && log.contains("rsa-sha2-512"), "{log}");
    assert!(log.contains("Received disconnect") || log.contains("Disconnected from"), "it logs out:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_signs_nothing_and_a_host_key_asks_nobody_in() {
    let (server, key) = (Sshd::start(&Setup::default()), key(2048));
    server.take(&[key.public()]);
    let target = server.target();
    probe().host_key(&target, None).await.unwrap();
    server.wait("the first connection ends", |server| server.running() == 0);
    assert!(!server.log().contains("userauth-request"), "{}", server.log());
    assert!(matches!(probe().offer(&target, None, key.public()).await, Login::Accepted(_)));
    server.wait("the second connection ends", |server| server.running() == 0);
    let log = server.log();
    assert!(log.contains("Postponed publickey") || log.contains("userauth_pubkey: "), "{log}");
    assert!(!log.contains("Accepted publickey") && !log.contains("signature verified"), "{log}");
    assert_eq!(server.accepted(), 2, "one connection a call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_many_host_keys_shows_the_pinned_one_whichever_it_is() {
    let kinds = ["rsa", "ecdsa", "ed25519"];
    let (server, key) = (Sshd::start(&Setup { host_keys: &kinds, ..Setup::default() }), key(2048));
    server.take(&[key.public()]);
    let target = server.target();
    assert_eq!(
        probe().host_key(&target, None).await.unwrap().host_key,
        server.host_key("ed25519"),
        "the best without a pin"
    );
    for kind in ["ed25519", "ecdsa"] {
        let pin = server.host_key(kind);
        let Login::Accepted(Seen { host_key, .. }) = probe().login(&target, Some(&pin), &key).await else {
            panic!("{kind}: {}", server.log());
        };
        assert_eq!(host_key, pin);
        assert_eq!(
            probe().host_key(&target, Some(&pin)).await.unwrap().host_key,
            pin,
            "of the pinned kind, without a login"
        );
    }
    // Made by nobody here: RSA host keys are neither asked for nor pinned.
    check_why(probe().login(&target, Some(&server.host_key("rsa")), &key).await, &["kind that is not checked"]);
    // The pinned one is gone, others are there: another machine.
    let (bare, pin) = (Sshd::start(&Setup::default()), server.host_key("ecdsa"));
    bare.take(&[key.public()]);
    let told = probe().login(&bare.target(), Some(&pin), &key).await;
    assert!(matches!(told, Login::WrongHost(Seen { host_key, .. }) if host_key == bare.host_key("ed25519")));
    assert!(!bare.log().contains("userauth-request"), "no key was offered");
    let only_rsa = Sshd::start(&Setup { host_keys: &["rsa"], ..Setup::default() });
    let told = probe().host_key(&only_rsa.target(), None).await.unwrap_err().why;
    assert!(told.contains("no algorithm in common") && told.contains("rsa-sha2-512"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_one_behind_the_other_each_with_its_own_key() {
    let setup = Setup { owner: Owner::Ordinary, ..Setup::default() };
    let (gate, inner) = (Sshd::start(&setup), Sshd::start(&Setup::default()));
    let (gate_key, inner_key) = (key(2048), key(3072));
    gate.take(&[gate_key.public()]);
    inner.take(&[inner_key.public()]);
    let jump = Jump { target: gate.target(), key: gate_key.clone(), pinned: Some(gate.host_key("ed25519")) };
    let target = Target { jump: Some(Box::new(jump)), ..inner.target() };
    let pin = inner.host_key("ed25519");
    let told = probe().login(&target, Some(&pin), &inner_key).await;
    assert!(matches!(&told, Login::Accepted(seen) if seen.host_key == pin), "{told:?}");
    assert!(matches!(probe().login(&target, Some(&pin), &gate_key).await, Login::Refused(_)));
    assert!(matches!(probe().offer(&target, Some(&pin), inner_key.public()).await, Login::Accepted(_)));
    assert_eq!((gate.accepted(), inner.accepted()), (3, 3));
    for server in [&gate, &inner] {
        server.wait("every connection ends", |server| server.running() == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_logins_at_once_all_succeed_and_leave_no_connection() {
    let (server, key) = (Sshd::start(&Setup { owner: Owner::Ordinary, ..Setup::default() }), key(2048));
    server.take(&[key.public()]);
    let (pin, target) =
        (server.host_key("ed25519"), Target { connect_timeout: Duration::from_secs(60), ..server.target() });
    let logins = (0..100).map(|_| {
        let (probe, target, pin, key) = (probe(), target.clone(), pin.clone(), key.clone());
        tokio::spawn(async move { probe.login(&target, Some(&pin), &key).await })
    });
    let logins: Vec<_> = logins.collect();
    for login in logins {
        let told = login.await.unwrap();
        assert!(matches!(told, Login::Accepted(_)), "{told:?}");
    }
    assert_eq!(server.accepted(), 100);
    server.wait("every connection ends", |server| server.running() == 0);
}

#[test]
fn nothing_secret_is_printed() {
    let key = key(2048);
    let target = Target::new("10.0.0.1", 22, "root");
    let jump = Jump { target: target.clone(), key: key.clone(), pinned: None };
    let printed = format!("{:?}", Target { jump: Some(Box::new(jump)), ..target });
    let lines: Vec<&str> = key.expose().lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(lines.len() > 10 && printed.contains(&key.public().fingerprint().to_string()));
    assert!(lines.iter().all(|line| !printed.contains(line)), "{printed}");
    let public: &PublicKey = key.public();
    assert_eq!(HostKey::of(public).algorithm, "ssh-rsa");
}
