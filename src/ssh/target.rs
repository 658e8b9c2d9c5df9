//! Where a login goes: address, port, user, and the host on the way. It must never look an address up itself: it tells
//! what it was told.

use std::fmt;
use std::time::Duration;

use super::HostKey;
use crate::model::PrivateKey;

/// A machine and the user to log in as.
#[derive(Clone, Debug)]
pub struct Target {
    /// An address (IPv6 without brackets) or a name. Of a name's addresses the first that takes the connection counts.
    /// Behind a jump host it is that host that looks the name up.
    pub host: String,
    /// The port of its sshd.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The host to go through; it may have one itself.
    pub jump: Option<Box<Jump>>,
    /// How long each of these may take: the connection, the key exchange, the authentication, the opening of a
    /// session. A login is over after four times this for the target and for each host on the way.
    pub connect_timeout: Duration,
}

/// A host on the way to a machine, and the login there.
#[derive(Clone, Debug)]
pub struct Jump {
    /// The host.
    pub target: Target,
    /// The key that it takes.
    pub key: PrivateKey,
    /// The host key that it must show; None takes any.
    pub pinned: Option<HostKey>,
}

impl Target {
    /// How long each part may take unless told otherwise.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// A target without a jump host, with [`Target::CONNECT_TIMEOUT`].
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        Self { host: host.into(), port, user: user.into(), jump: None, connect_timeout: Self::CONNECT_TIMEOUT }
    }
}

/// `user@host:port`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, Place(self))
    }
}

/// `host:port` of a target, an IPv6 address in brackets.
pub(super) struct Place<'a>(pub(super) &'a Target);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, .. } = self.0;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
