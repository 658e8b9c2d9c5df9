//! The proof by login: what is asked, and the four answers. It must never tell a key refused where the server has not
//! refused it: an unreachable machine is no evidence against a key.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::model::{Fingerprint, PrivateKey, PublicKey};

/// The key by which a server is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// Of the whole key: the same fingerprint is the same key.
    pub fingerprint: Fingerprint,
    /// Its kind, as in known_hosts: `ssh-ed25519`, `ecdsa-sha2-nistp256`, … A server has one key of each kind and shows
    /// the one that is asked for first, so a pin is asked for by its kind.
    pub algorithm: String,
}

impl HostKey {
    /// The pin of this key.
    pub fn of(key: &PublicKey) -> Self {
        let line = key.to_openssh();
        Self { fingerprint: key.fingerprint(), algorithm: line.split(' ').next().unwrap_or_default().to_string() }
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// A server that has proven its host key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The key that it showed and signed with.
    pub host_key: HostKey,
    /// Its greeting: `SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3`. Printable ASCII, at most 255 characters. It is the
    /// server's own word, and sent before anything is proven.
    pub server: String,
}

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `login`: the server took the key's signature and opened a session channel. `offer`: it would take the key.
    Accepted(Seen),
    /// The server has shown its host key and has refused this key for this user. The one answer that speaks against a
    /// key (or user, or the guest's authorized_keys).
    Refused(Seen),
    /// Anything else: no evidence either way.
    Unreachable {
        /// What happened, for an operator: names the host, and whether it is a jump host.
        why: String,
    },
    /// Another host key than the pinned one. No key was offered.
    WrongHost(Seen),
}

/// Why no host key was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unreachable {
    /// What happened, for an operator: names the host, and whether it is a jump host.
    pub why: String,
}

/// Logs in to machines. A call makes one connection (of a name's addresses the first that takes one), bounds each part
/// of it by the target's time-out, and closes it before it answers; dropping the call closes it too. No command is run.
///
/// What counts as a login: authentication by this key, and a session channel that the server opens. A server that takes
/// the key and then opens no session, or asks for a second factor, has not refused the key: it is `Unreachable`, with
/// that reason. So is one that lets anybody in without a signature, and one that ends the connection before it has
/// answered the key (MaxStartups, a tarpit, too many authentication failures, `/etc/nologin` while it boots).
/// What a login shell or a forced command would do is not asked.
#[async_trait]
pub trait LoginProbe: Send + Sync {
    /// Reads the host key; needs no login.
    async fn host_key(&self, target: &Target) -> Result<Seen, Unreachable>;

    /// Logs in with this key, and out again. `pinned`: the host key that must be shown; None takes any.
    async fn login(&self, target: &Target, pinned: Option<&HostKey>, key: &PrivateKey) -> Login;

    /// Offers a public key without its private half: whether the server would take it. Never signs. Accepted: it is
    /// still taken (a server that lets anybody in takes every key).
    async fn offer(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login;
}
