//! Logins into the simulated machines, without a network: a machine that runs takes the keys that its guest accepts.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekeyd::model::{HostKey, Login, PrivateKey, PublicKey, Seen};
use rekeyd::sim::{Power, World};
use rekeyd::ssh::{LoginProbe, Target, Unreachable};

/// Logs in to the machines of a world by their private addresses.
pub struct Guests(pub Arc<Mutex<World>>);

impl Guests {
    fn visit(&self, target: &Target, pinned: Option<&HostKey>, key: Option<&PublicKey>) -> Login {
        let world = self.0.lock().unwrap();
        let unreachable = |why: &str| Login::Unreachable { why: format!("{}: {why}", target.host) };
        let found = world.machines().find(|(_, machine)| machine.private_address == target.host);
        let Some((_, machine)) = found.filter(|(_, machine)| machine.power == Power::Running) else {
            return unreachable("no answer");
        };
        let fingerprint = format!("SHA256:{}", machine.id);
        let host_key = HostKey {
            fingerprint: serde_json::from_value(serde_json::Value::from(fingerprint)).unwrap(),
            algorithm: "ssh-ed25519".to_string(),
        };
        let seen = Seen { host_key, server: "SSH-2.0-Simulated".to_string() };
        if pinned.is_some_and(|pinned| *pinned != seen.host_key) {
            return Login::WrongHost(seen);
        }
        match key {
            Some(key) if machine.accepts.contains(&key.to_openssh()) => Login::Accepted(seen),
            _ => Login::Refused(seen),
        }
    }
}

#[async_trait]
impl LoginProbe for Guests {
    async fn host_key(&self, target: &Target, _pinned: Option<&HostKey>) -> Result<Seen, Unreachable> {
        match self.visit(target, None, None) {
            Login::Accepted(seen) | Login::Refused(seen) | Login::WrongHost(seen) => Ok(seen),
            Login::Unreachable { why } => Err(Unreachable { why }),
        }
    }
    async fn login(&self, target: &Target, pinned: Option<&HostKey>, key: &PrivateKey) -> Login {
        self.visit(target, pinned, Some(key.public()))
    }
    async fn offer(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login {
        self.visit(target, pinned, Some(key))
    }
}
