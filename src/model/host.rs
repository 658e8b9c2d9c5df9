//! A server and its answer to a login, as plain values; what asks for them is the `ssh` room's. A refusal must never be
//! told where the server has not refused: an unreachable machine is no evidence against a key.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Image, PublicKey};

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

/// How a machine is known again: by its host key, as long as its disk is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The host key.
    #[serde(flatten)]
    pub host_key: HostKey,
    /// What its disk was made from then, where the cloud shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

impl Pin {
    /// Whether the cloud shows a disk that was made anew since: another host key is then no wonder.
    pub fn is_outlived(&self, seen: Option<&Image>) -> bool {
        self.image.as_ref().zip(seen).is_some_and(|(pinned, seen)| pinned.was_replaced_by(seen))
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
