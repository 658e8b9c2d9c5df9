//! What is no login and no refusal: silent ports, other protocols, floods, servers that end early or too late. None of
//! it may be told as evidence against a key, and each has its reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rekeyd::clock::{Clock, SystemClock};
use rekeyd::ssh::{Login, LoginProbe, SshProbe, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sshd::{Owner, Setup, Sshd};
use crate::{check_why, key, probe};

/// A server that says this to each connection, again and again if asked, and then closes it or keeps it open.
#[derive(Clone, Copy)]
struct Rude {
    first: &'static [u8],
    then: &'static [u8],
    close: bool,
}

impl Rude {
    /// Its address, and the task that serves it. `closed` is told each connection that the other side ended.
    async fn start(self, closed: tokio::sync::mpsc::UnboundedSender<()>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let closed = closed.clone();
                tokio::spawn(async move {
                    self.serve(socket).await;
                    let _ = closed.send(());
                });
            }
        });
        Target { connect_timeout: Duration::from_millis(400), ..Target::new("127.0.0.1", port, "root") }
    }

    async fn serve(self, socket: TcpStream) {
        let (mut reader, mut writer) = socket.into_split();
        let _ = writer.write_all(self.first).await;
        while !self.then.is_empty() && writer.write_all(self.then).await.is_ok() {}
        if self.close {
            let _ = writer.shutdown().await;
        }
        while reader.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    }
}

/// Each call is unreachable for this reason, soon, and its connection is closed.
async fn check(rude: Rude, expect: &[&str]) {
    let (closed, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let (target, key, began) = (rude.start(closed).await, key(2048), Instant::now());
    check_why(probe().login(&target, None, &key).await, expect);
    check_why(probe().offer(&target, None, key.public()).await, expect);
    check_why(Login::Unreachable { why: probe().host_key(&target, None).await.unwrap_err().why }, expect);
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(10), ends.recv()).await.expect("the connection is closed").unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

const PLAIN: Rude = Rude { first: b"", then: b"", close: false };

#[tokio::test]
async fn a_silent_port_is_unreachable_when_the_time_is_up() {
    check(PLAIN, &["127.0.0.1:", "the port is open, and nothing came within 400 ms"]).await;
}

#[tokio::test]
async fn a_port_that_closes_at_once_is_unreachable() {
    check(Rude { close: true, ..PLAIN }, &["closed the connection without a word"]).await;
}

#[tokio::test]
async fn another_protocol_is_told_by_what_it_said() {
    let http = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>\x1b[31m</html>";
    check(Rude { first: http, close: true, ..PLAIN }, &["no SSH greeting; it said \"HTTP/1.1 400 Bad Request\""]).await;
    let mail = b"220 mail ESMTP\r\n";
    check(Rude { first: mail, ..PLAIN }, &["no SSH greeting within 400 ms; it said \"220 mail ESMTP\""]).await;
    let full = b"Exceeded MaxStartups\r\n";
    check(Rude { first: full, close: true, ..PLAIN }, &["no SSH greeting; it said \"Exceeded MaxStartups\""]).await;
}

#[tokio::test]
async fn a_flood_is_not_read_to_its_end() {
    // Before the greeting: lines, and one line without end. After it: rubbish, and harmless packets without end.
    check(Rude { then: b"wait\r\n", ..PLAIN }, &["no SSH greeting; it said \"wait\""]).await;
    check(Rude { then: &[b'x'; 4096], ..PLAIN }, &["no SSH greeting; it said \"xxx"]).await;
    check(Rude { first: b"SSH-2.0-x\r\n", then: &[0xff; 4096], close: false }, &["protocol"]).await;
    // SSH_MSG_IGNORE with 5 bytes of text: length, padding length, message, string, padding.
    const IGNORE: [u8; 16] = [0, 0, 0, 12, 4, 2, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0];
    check(Rude { first: b"SSH-2.0-x\r\n", then: &IGNORE, close: false }, &["127.0.0.1:"]).await;
}

#[tokio::test]
async fn a_server_that_greets_and_no_more_is_unreachable() {
    let greeting = b"SSH-2.0-tarpit\r\n";
    check(Rude { first: greeting, ..PLAIN }, &["it greeted", "not over within 400 ms"]).await;
    check(Rude { first: greeting, close: true, ..PLAIN }, &["closed the connection during the key exchange"]).await;
}

#[tokio::test]
async fn an_address_without_route_and_a_name_without_address_are_told_apart() {
    let key = key(2048);
    let target = |host: &str| Target { connect_timeout: Duration::from_secs(5), ..Target::new(host, 22, "root") };
    // 240/4 is reserved; the kernel refuses it or nothing answers, on each machine its own way, none of them a login.
    let reserved = Target { connect_timeout: Duration::from_millis(300), ..target("240.0.0.1") };
    check_why(probe().login(&reserved, None, &key).await, &["240.0.0.1:22: no "]);
    check_why(probe().login(&target("no-such-host.invalid"), None, &key).await, &["no-such-host.invalid:22: no "]);
    check_why(probe().login(&target("::ffff:0:0:1"), None, &key).await, &["[::ffff:0:0:1]:22: "]);
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection() {
    let (closed, mut ends) = tokio::sync::mpsc::unbounded_channel();
    for first in [&b""[..], b"SSH-2.0-x\r\n"] {
        let target = Rude { first, ..PLAIN }.start(closed.clone()).await;
        let target = Target { connect_timeout: Duration::from_secs(600), ..target };
        let key = key(2048);
        let call = probe();
        let call = call.login(&target, None, &key);
        assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err(), "it waits");
        tokio::time::timeout(Duration::from_secs(10), ends.recv()).await.expect("the connection is closed").unwrap();
    }
}

/// A clock on which nothing ever takes long: its sleepers wake when they are told to.
struct Told(tokio::sync::Notify);

#[async_trait::async_trait]
impl Clock for Told {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now()
    }
    async fn sleep_until(&self, _: jiff::Timestamp) {
        self.0.notified().await;
    }
}

#[tokio::test]
async fn the_time_out_is_the_given_clocks() {
    let (closed, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let target = PLAIN.start(closed).await;
    let clock = Arc::new(Told(tokio::sync::Notify::new()));
    let (probe, key) = (SshProbe::new(clock.clone()), key(2048));
    let call = tokio::spawn(async move { probe.login(&target, None, &key).await });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!call.is_finished(), "by its clock no time has passed");
    clock.0.notify_waiters();
    check_why(call.await.unwrap(), &["nothing came within"]);
    ends.recv().await.unwrap();
}

/// A server that takes a minute to look the key up. sshd insists on a command of root's, of which it is told the user.
fn slow() -> Sshd {
    let user = if Sshd::as_root() { "daemon".into() } else { Sshd::start(&Setup::default()).target().user };
    let config = format!("AuthorizedKeysCommand /bin/sleep 60\nAuthorizedKeysCommandUser {user}");
    Sshd::start(&Setup { config: &config, ..Setup::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_before_it_answers_has_refused_nothing() {
    let (server, key) = (slow(), key(2048));
    let target = server.target();
    let call = {
        let key = key.clone();
        tokio::spawn(async move { probe().login(&target, None, &key).await })
    };
    server.wait("the key is offered", |server| server.log().contains("userauth_pubkey: "));
    assert!(!call.is_finished());
    server.kill();
    check_why(call.await.unwrap(), &["127.0.0.1:", "closed the connection before it answered the key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_the_key_in_time_has_refused_nothing() {
    let (server, key) = (slow(), key(2048));
    let target = Target { connect_timeout: Duration::from_secs(2), ..server.target() };
    check_why(probe().login(&target, None, &key).await, &["did not answer the key within 2 s"]);
    check_why(probe().offer(&target, None, key.public()).await, &["did not answer the key within 2 s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_at_the_first_key_and_a_second_factor_are_no_refusals() {
    let key = key(2048);
    let check = async |config: &str, taken: bool, expect: &[&str]| {
        let server = Sshd::start(&Setup { config, ..Setup::default() });
        if taken {
            server.take(&[key.public()]);
        }
        check_why(probe().login(&server.target(), None, &key).await, expect);
    };
    check("MaxAuthTries 1", false, &["ended the connection before it answered the key", "Too many auth"]).await;
    check("AuthenticationMethods publickey,publickey", true, &["takes the key", "second factor"]).await;
    check("MaxSessions 0", true, &["took the key", "refused to open a session"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_forwards_nothing_is_named() {
    let (gate, key) = (Sshd::start(&Setup { config: "AllowTcpForwarding no", ..Setup::default() }), key(2048));
    gate.take(&[key.public()]);
    let jump = rekeyd::ssh::Jump { target: gate.target(), key: key.clone(), pinned: None };
    let target = Target { jump: Some(Box::new(jump)), ..Target::new("127.0.0.1", 22, "root") };
    check_why(probe().login(&target, None, &key).await, &["127.0.0.1:22: the jump host forwards nothing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_is_unreachable_and_takes_the_key_when_it_has_room_again() {
    let setup = Setup { owner: Owner::Ordinary, config: "MaxStartups 1:100:1", ..Setup::default() };
    let (server, key) = (Sshd::start(&setup), key(2048));
    server.take(&[key.public()]);
    let target = server.listen();
    let (place, patience) = (format!("{}:{}", target.host, target.port), Duration::from_secs(20));
    // It is full once somebody is at the door.
    let mut guest = TcpStream::connect(&place).await.unwrap();
    let mut greeting = [0; 4];
    tokio::time::timeout(patience, guest.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"SSH-");
    check_why(probe().login(&target, None, &key).await, &["Exceeded MaxStartups"]);
    check_why(probe().offer(&target, None, key.public()).await, &["Exceeded MaxStartups"]);
    drop(guest);
    let until = Instant::now() + patience;
    loop {
        match probe().login(&target, None, &key).await {
            Login::Accepted(_) => break,
            told => assert!(Instant::now() < until && matches!(told, Login::Unreachable { .. }), "{told:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
