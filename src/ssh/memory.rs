//! A probe of machines that exist in memory only, for the tests of whoever asks one. It must never be a daemon's: its
//! answers prove nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::target::Place;
use super::{HostKey, Login, LoginProbe, Seen, Target, Unreachable};
use crate::model::{PrivateKey, PublicKey};

/// A machine as a login sees it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its host key.
    pub host_key: HostKey,
    /// Its greeting.
    pub server: String,
    /// Who may log in with which key.
    pub takes: Vec<(String, PublicKey)>,
}

impl Guest {
    /// A machine that shows this host key and takes nobody.
    pub fn new(host_key: HostKey) -> Self {
        Self { host_key, server: "SSH-2.0-Memory".into(), takes: Vec::new() }
    }
    /// The same, that takes this user with this key too.
    pub fn taking(mut self, user: &str, key: &PublicKey) -> Self {
        self.takes.push((user.into(), key.clone()));
        self
    }
    fn takes(&self, user: &str, key: &PublicKey) -> bool {
        self.takes.iter().any(|(who, taken)| who == user && taken == key)
    }
    fn seen(&self) -> Seen {
        Seen { host_key: self.host_key.clone(), server: self.server.clone() }
    }
}

/// Machines by host and port. Any user of it may change them while others log in.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<(String, u16), Guest>>);

impl Memory {
    /// No machine at all: every connection is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a machine there, instead of the one before.
    pub fn set(&self, host: &str, port: u16, guest: Guest) {
        self.guests().insert((host.into(), port), guest);
    }

    /// Takes the machine away: a connection is refused again.
    pub fn remove(&self, host: &str, port: u16) {
        self.guests().remove(&(host.into(), port));
    }

    /// No call leaves the map half-changed.
    fn guests(&self) -> MutexGuard<'_, BTreeMap<(String, u16), Guest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine, if it and every host on the way answers; else why not, with `what` before the host's name.
    fn reach(&self, what: &str, target: &Target) -> Result<Guest, String> {
        if let Some(jump) = &target.jump {
            let at = |why: &str| format!("jump host {}: {why}", Place(&jump.target));
            let guest = self.reach("jump host ", &jump.target)?;
            if jump.pinned.as_ref().is_some_and(|pin| pin.fingerprint != guest.host_key.fingerprint) {
                return Err(at(&format!("it shows the host key {}, not the pinned one", guest.host_key)));
            }
            if !guest.takes(&jump.target.user, jump.key.public()) {
                return Err(at(&format!("it refuses its key for {}", jump.target.user)));
            }
        }
        let guest = self.guests().get(&(target.host.clone(), target.port)).cloned();
        guest.ok_or_else(|| match &target.jump {
            None => format!("{what}{}: connection refused: nothing listens on that port", Place(target)),
            Some(_) => format!("{what}{}: the jump host gets no connection to it", Place(target)),
        })
    }

    fn ask(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login {
        match self.reach("", target) {
            Err(why) => Login::Unreachable { why },
            Ok(guest) if pinned.is_some_and(|pin| pin.fingerprint != guest.host_key.fingerprint) => {
                Login::WrongHost(guest.seen())
            }
            Ok(guest) if guest.takes(&target.user, key) => Login::Accepted(guest.seen()),
            Ok(guest) => Login::Refused(guest.seen()),
        }
    }
}

#[async_trait]
impl LoginProbe for Memory {
    async fn host_key(&self, target: &Target, _pinned: Option<&HostKey>) -> Result<Seen, Unreachable> {
        self.reach("", target).map(|guest| guest.seen()).map_err(|why| Unreachable { why })
    }
    async fn login(&self, target: &Target, pinned: Option<&HostKey>, key: &PrivateKey) -> Login {
        self.ask(target, pinned, key.public())
    }
    async fn offer(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login {
        self.ask(target, pinned, key)
    }
}
