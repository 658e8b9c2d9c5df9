//! One SSH connection through russh: meeting the server, authenticating, opening a session. All that is russh's own
//! stays in here and in `signer`. It must never answer a server's host key with a key of ours before it is checked.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Config, DisconnectReason, Handle, Handler};
use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};
use russh::{ChannelOpenFailure, Disconnect, Error, MethodSet, Preferred, SshId};
use ssh_key::HashAlg;

use super::signer::{Pen, SignError, SigningKey};
use super::wire::{Hold, Stream, printable, wire};
use super::{HostKey, Seen};
use crate::clock::Clock;
use crate::model::PublicKey;

/// The kinds of host key that are asked for, best first. Not RSA: russh checks those with the `rsa` crate only, which
/// is kept out (RUSTSEC-2023-0071). OpenSSH makes an Ed25519 and an ECDSA key beside it on every machine.
const HOST_KEYS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no session. The texts do not name the host.
pub(super) enum Missed {
    /// No evidence, in an operator's words.
    Unreachable(String),
    /// Another host key than the pinned one.
    WrongHost(Seen),
}

/// What the server said to a key.
pub(super) enum Verdict {
    /// It took it: signed if there was a private half, else it would.
    Taken,
    /// It refused it.
    Refused,
    /// Neither; why.
    Neither(String),
}

/// What is wanted of the first handshake.
pub(super) enum Wanted<'a> {
    /// The host key only, of this one's kind if it has one: the connection ends once it is proven.
    HostKey(Option<&'a HostKey>),
    /// A session with whoever shows this key (None: with anybody).
    Session(Option<&'a HostKey>),
}

/// What the handler saw, shared with whoever waits.
#[derive(Default)]
struct Notes {
    host_key: Option<HostKey>,
    /// Whether that was the pinned one.
    right: bool,
    /// The server's words when it ended the connection.
    farewell: Option<String>,
    /// Whether it refused a key and named no other way in, upon which russh ends the connection.
    no_method_left: bool,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears what the server says of its own accord.
struct Ears {
    notes: Arc<Mutex<Notes>>,
    pinned: Option<HostKey>,
    go_on: bool,
}

impl Handler for Ears {
    type Error = Error;

    /// Called once the server has signed the exchange with this key.
    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let line = key.to_openssh().map_err(Error::from)?;
        let host_key = HostKey::of(&PublicKey::parse(&line).map_err(|_| Error::CouldNotReadKey)?);
        let right = self.pinned.as_ref().is_none_or(|pin| pin.fingerprint == host_key.fingerprint);
        let mut notes = lock(&self.notes);
        (notes.host_key, notes.right) = (Some(host_key), right);
        Ok(right && self.go_on)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        let mut notes = lock(&self.notes);
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => notes.farewell = Some(printable(said.message.as_bytes())),
            DisconnectReason::Error(Error::NoAuthMethod) => notes.no_method_left = true,
            DisconnectReason::Error(_) => {}
        }
        Ok(())
    }
}

/// A connection to a server whose host key is proven. Dropping it closes the connection.
pub(super) struct Session {
    handle: Handle<Ears>,
    notes: Arc<Mutex<Notes>>,
    hold: Hold,
    seen: Seen,
    patience: Patience,
    /// The session that this one runs through.
    _outer: Option<Box<Session>>,
}

/// How long each part may take, and by which clock.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) span: Duration,
}

impl Patience {
    /// What it yields, or None when its time is up (it is dropped then).
    pub(super) async fn lasts<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let until = self.clock.now().checked_add(self.span).unwrap_or(jiff::Timestamp::MAX);
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.clock.sleep_until(until) => None,
        }
    }
}

/// `10 s` or `250 ms`.
impl std::fmt::Display for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.span.as_millis() {
            whole if whole % 1000 == 0 => write!(f, "{} s", whole / 1000),
            part => write!(f, "{part} ms"),
        }
    }
}

/// Exchanges keys over this stream, at most until the patience ends.
pub(super) async fn meet(
    stream: Box<dyn Stream>,
    outer: Option<Box<Session>>,
    wanted: Wanted<'_>,
    patience: Patience,
) -> Result<Session, Missed> {
    let (pinned, go_on) = match wanted {
        Wanted::HostKey(pinned) => (pinned.cloned(), false),
        Wanted::Session(pinned) => (pinned.cloned(), true),
    };
    let config = Arc::new(config(pinned.as_ref()).map_err(Missed::Unreachable)?);
    let (end, hold) = wire(stream);
    let notes = Arc::new(Mutex::new(Notes::default()));
    let ears = Ears { notes: Arc::clone(&notes), pinned, go_on };
    let met = patience.lasts(russh::client::connect_stream(config, end, ears)).await;
    let seen = || {
        let host_key = lock(&notes).host_key.clone()?;
        Some(Seen { host_key, server: hold.greeting().unwrap_or_default() })
    };
    match met {
        None => Err(Missed::Unreachable(match (hold.greeting(), hold.first_line()) {
            (Some(_), _) => format!("it greeted, and its key exchange was not over within {patience}"),
            (None, Some(said)) => format!("no SSH greeting within {patience}; it said {said:?}"),
            (None, None) => format!("the port is open, and nothing came within {patience}"),
        })),
        Some(Ok(handle)) => {
            let Some(seen) = seen() else { return Err(Missed::Unreachable("it showed no host key".into())) };
            Ok(Session { handle, notes, hold, seen, patience, _outer: outer })
        }
        Some(Err(error)) => match seen() {
            Some(seen) if !lock(&notes).right || !go_on => Err(Missed::WrongHost(seen)),
            _ => Err(Missed::Unreachable(unmet(&error, &hold, &lock(&notes)))),
        },
    }
}

/// The pinned kind of host key is asked for first, as `ssh` does with one in known_hosts: a server that still has it
/// shows it, whichever others it has.
fn config(pinned: Option<&HostKey>) -> Result<Config, String> {
    let mut keys = HOST_KEYS.to_vec();
    if let Some(pin) = pinned {
        let Some(at) = keys.iter().position(|kind| kind.as_str() == pin.algorithm) else {
            return Err(format!("its pinned host key is of a kind that is not checked here: {pin}"));
        };
        keys[..=at].rotate_right(1);
    }
    Ok(Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-rekeyd_", env!("CARGO_PKG_VERSION")))),
        preferred: Preferred { key: Cow::Owned(keys), ..Preferred::DEFAULT },
        ..Config::default()
    })
}

/// Why there was no key exchange.
fn unmet(error: &Error, hold: &Hold, notes: &Notes) -> String {
    if let Some(said) = &notes.farewell {
        return format!("it ended the connection: {said:?}");
    }
    if hold.flooded() {
        return "it sends without end".into();
    }
    if hold.greeting().is_none() {
        return match (hold.first_line(), error) {
            (Some(said), _) => format!("no SSH greeting; it said {said:?}"),
            (None, _) => "it closed the connection without a word".into(),
        };
    }
    match error {
        Error::NoCommonAlgo { kind, theirs, .. } => {
            let theirs = printable(theirs.join(",").as_bytes());
            format!("no algorithm in common ({kind:?}): it has {theirs}")
        }
        Error::Disconnect | Error::HUP | Error::IO(_) => "it closed the connection during the key exchange".into(),
        Error::WrongServerSig => "its host key's signature does not hold".into(),
        error => format!("it does not keep to the protocol: {}", printable(error.to_string().as_bytes())),
    }
}

impl Session {
    /// Whom it is with.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// How the connection ended.
    fn ended(&self, when: &str) -> String {
        if self.hold.flooded() {
            return format!("it sends without end {when}");
        }
        match &lock(&self.notes).farewell {
            Some(said) => format!("it ended the connection {when}: {said:?}"),
            None => format!("it closed the connection {when}"),
        }
    }

    /// Offers the public key, and signs with the private one if there is one.
    pub(super) async fn authenticate(&mut self, user: &str, public: &PublicKey, key: Option<&SigningKey>) -> Verdict {
        let patience = self.patience.clone();
        match patience.lasts(self.offer(user, public, key)).await {
            Some(verdict) => verdict,
            None => Verdict::Neither(format!("it did not answer the key within {patience}")),
        }
    }

    async fn offer(&mut self, user: &str, public: &PublicKey, key: Option<&SigningKey>) -> Verdict {
        const WHEN: &str = "before it answered the key";
        let Ok(public) = ssh_key::PublicKey::from_openssh(&public.to_openssh()) else {
            return Verdict::Neither("the public key does not read".into());
        };
        let hash = match public.algorithm().is_rsa() {
            false => None,
            true => match self.handle.best_supported_rsa_hash().await {
                // It says which, or nothing: then the best is tried, as `ssh` does.
                Ok(Some(Some(hash))) => Some(hash),
                Ok(None) => Some(HashAlg::Sha512),
                Ok(Some(None)) => {
                    return Verdict::Neither("it takes RSA keys with SHA-1 signatures only, which are not made".into());
                }
                Err(_) => return Verdict::Neither(self.ended(WHEN)),
            },
        };
        let mut pen = Pen { key, asked: false };
        match self.handle.authenticate_publickey_with(user, public, hash, &mut pen).await {
            Ok(AuthResult::Success) if key.is_some() && !pen.asked => {
                Verdict::Neither("it lets anybody in, without a signature: that proves no key".into())
            }
            Ok(AuthResult::Success) => Verdict::Taken,
            Ok(AuthResult::Failure { partial_success: true, .. }) => {
                Verdict::Neither("it takes the key, and asks for a second factor".into())
            }
            // russh gives the same answer, without methods, for a connection that ended before any.
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods == MethodSet::empty() => {
                let _ = (&mut self.handle).await;
                if lock(&self.notes).no_method_left { Verdict::Refused } else { Verdict::Neither(self.ended(WHEN)) }
            }
            Ok(AuthResult::Failure { .. }) => Verdict::Refused,
            Err(SignError::OnlyOffered) => Verdict::Taken,
            Err(SignError::Ended) => Verdict::Neither(self.ended(WHEN)),
            Err(error) => Verdict::Neither(error.to_string()),
        }
    }

    /// Opens a session channel; Err says why there is none.
    pub(super) async fn open(&mut self) -> Result<(), String> {
        match self.patience.lasts(self.handle.channel_open_session()).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(Error::ChannelOpenFailure(why))) => {
                Err(format!("it took the key, and refused to open a session ({why:?})"))
            }
            Some(Err(_)) => Err(self.ended("after it took the key, before a session was open")),
            None => Err(format!("it took the key, and opened no session within {}", self.patience)),
        }
    }

    /// A connection from there to another machine; Err says why there is none.
    pub(super) async fn forward(&mut self, host: &str, port: u16) -> Result<Box<dyn Stream>, String> {
        let opened = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        match self.patience.lasts(opened).await {
            Some(Ok(channel)) => Ok(Box::new(channel.into_stream())),
            Some(Err(Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))) => {
                Err("the jump host gets no connection to it".into())
            }
            Some(Err(Error::ChannelOpenFailure(why))) => Err(format!("the jump host forwards nothing to it ({why:?})")),
            Some(Err(_)) => Err("the jump host ended the connection".into()),
            None => Err(format!("the jump host got no connection to it within {}", self.patience)),
        }
    }

    /// Says farewell and closes the connection; the sessions that it ran through are closed with it.
    pub(super) async fn close(mut self) {
        let farewell = Patience { clock: Arc::clone(&self.patience.clock), span: FAREWELL.min(self.patience.span) };
        let said = async {
            if self.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
                let _ = (&mut self.handle).await;
            }
        };
        farewell.lasts(said).await;
        drop(self.hold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_kind_of_host_key_is_asked_for_first_and_the_others_after_it() {
        let check = |pin: Option<&str>, expect: &[&str]| {
            let key = crate::model::PrivateKey::sample(1);
            let pin = pin.map(|kind| HostKey { algorithm: kind.into(), ..HostKey::of(key.public()) });
            let asked = config(pin.as_ref()).map(|config| config.preferred.key);
            let asked: Vec<String> = asked.unwrap_or_default().iter().map(ToString::to_string).collect();
            assert_eq!(asked, expect, "{pin:?}");
        };
        let [a, b, c, d] = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
        check(None, &[a, b, c, d]);
        check(Some(a), &[a, b, c, d]);
        check(Some(b), &[b, a, c, d]);
        check(Some(d), &[d, a, b, c]);
        check(Some("ssh-rsa"), &[]);
        check(Some("ssh-dss"), &[]);
    }

    #[test]
    fn a_span_is_told_as_people_say_it() {
        let check = |span: u64, expect: &str| {
            let clock = Arc::new(crate::clock::SystemClock);
            assert_eq!(Patience { clock, span: Duration::from_millis(span) }.to_string(), expect);
        };
        check(10_000, "10 s");
        check(250, "250 ms");
        check(1500, "1500 ms");
    }
}
