//! The proof by login: what is asked, and the four answers. It must never tell a key refused where the server has not
//! refused it: an unreachable machine is no evidence against a key.

use async_trait::async_trait;

use super::Target;
use crate::model::{HostKey, Login, PrivateKey, PublicKey, Seen};

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
    /// Reads the host key; needs no login, and offers no key. `pinned`: the one that it is known by, whose kind is asked for
    /// first; whether it is the same is for the caller to see.
    async fn host_key(&self, target: &Target, pinned: Option<&HostKey>) -> Result<Seen, Unreachable>;

    /// Logs in with this key, and out again. `pinned`: the host key that must be shown; None takes any.
    async fn login(&self, target: &Target, pinned: Option<&HostKey>, key: &PrivateKey) -> Login;

    /// Offers a public key without its private half: whether the server would take it. Never signs. Accepted: it is
    /// still taken (a server that lets anybody in takes every key).
    async fn offer(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login;
}
