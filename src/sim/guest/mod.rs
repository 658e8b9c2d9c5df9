//! The guests of the simulated machines: each running Linux instance has a loopback address of its own where a real sshd
//! answers, and takes the keys that the machine's guest accepts at that moment, whatever the cloud's record says. A guest
//! is the world's shadow: it must never change what is true there, nor be reached from outside this machine.

mod hostkey;
mod lanes;
mod sshd;

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::machine::{Machine, Os, Power};
use super::world::later;

pub(super) use lanes::Guests;
pub(in crate::sim) use sshd::Room;

/// The port of every guest, unless another is asked for.
pub const PORT: u16 = 2222;

/// How guests are served.
#[derive(Clone, Debug)]
pub struct Sshd {
    /// The one port of all guests; 0 for one that the system hands out.
    pub port: u16,
    /// Who may log in; ourselves unless said otherwise. Only root may name another user.
    pub user: Option<String>,
    /// What a machine does that is down.
    pub down: Down,
    /// How long after it runs a machine's sshd comes up.
    pub delay: Duration,
    /// Where the directory for keys and sshd's config is made.
    pub above: PathBuf,
}

impl Sshd {
    /// Port 2222, ourselves, refused while down, no delay.
    pub fn under(above: impl Into<PathBuf>) -> Self {
        Self { port: PORT, user: None, down: Down::Refused, delay: Duration::ZERO, above: above.into() }
    }

    /// Whether an sshd is installed where one is looked for.
    pub fn is_installed() -> bool {
        sshd::find().is_some()
    }
}

/// What comes back from a machine that is down, or cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Down {
    /// The connection is refused.
    #[default]
    Refused,
    /// Nothing: whoever connects waits.
    Silent,
}

impl std::str::FromStr for Down {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refused" => Ok(Self::Refused),
            "silent" => Ok(Self::Silent),
            _ => Err(format!("{text:?}: write refused or silent")),
        }
    }
}

/// Why there can be no guests.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// OpenSSH's server is not there.
    #[error("there is no sshd on this machine: install openssh-server, or leave --sshd out")]
    NoSshd,
    /// Nobody is called so.
    #[error("there is no user {0:?} on this machine: give another --ssh-user")]
    UnknownUser(String),
    /// Without privileges sshd cannot become another user.
    #[error("only root can let {user} log in; as {own}, leave --ssh-user out")]
    OtherUser {
        /// Who was asked for.
        user: String,
        /// Who we are.
        own: String,
    },
    /// Its password field says so.
    #[error("the account {0} is locked, and sshd lets nobody into a locked account: give another --ssh-user")]
    Locked(String),
    /// No block of loopback addresses is free at this port.
    #[error("port {0} is taken on every loopback address that was tried: give another --ssh-port, or 0 for any")]
    Taken(u16),
    /// More machines than a block has addresses.
    #[error("{0} machines in one cloud are more than there are loopback addresses for them ({MOST})")]
    TooMany(usize),
    /// The system gives no socket.
    #[error("cannot listen for the guests: {0} (each running machine needs an open file: see `ulimit -n`)")]
    Listen(io::Error),
    /// A file or directory, or a program.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The error of something that was tried on a file.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.to_path_buf();
    move |source| GuestError::File { what, path, source }
}

/// Machines of one cloud that have addresses.
const MOST: usize = 64 * 250;

/// The loopback address of a machine, by the numbers of its cloud and of itself, in a block `127.BLOCK.0.0/16`.
fn address(block: u8, cloud: usize, machine: usize) -> Option<Ipv4Addr> {
    let third = u8::try_from(cloud * 64 + machine / 250).ok().filter(|_| cloud < 4 && machine < MOST)?;
    Some(Ipv4Addr::new(127, block, third, u8::try_from(machine % 250 + 1).ok()?))
}

/// The address that a simulator holds for as long as it lives, so that no other one takes its block. No machine's.
fn claim(block: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, block, 255, 254)
}

/// Whether a machine's sshd answers at `now`.
fn answers(machine: &Machine, now: Timestamp, delay: Duration) -> bool {
    let up = machine.boots == 0 || now >= later(machine.booted_at, delay);
    machine.os == Os::Linux && machine.power == Power::Running && !machine.guest.unreachable && up
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::{InstanceSpec, World};

    #[test]
    fn each_machine_has_an_address_of_its_own_and_none_is_the_claim() {
        let mut seen = BTreeSet::from([claim(70)]);
        for cloud in 0..4 {
            for machine in (0..MOST).step_by(7) {
                assert!(seen.insert(address(70, cloud, machine).unwrap()), "{cloud} {machine}");
            }
            assert_eq!(address(70, cloud, MOST), None);
        }
        assert_eq!(address(70, 4, 0), None);
        assert_eq!(address(64, 1, 251).unwrap().to_string(), "127.64.65.2");
    }

    #[test]
    fn only_a_running_linux_machine_that_is_not_cut_off_answers() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let check = |power: Power, os: Os, boots: u32, unreachable: bool, expect: bool| {
            let mut world = World::new(1, now);
            let cloud = world.open_cloud(ProviderKind::TencentCvm);
            world.add_instance(cloud, InstanceSpec { power, os, ..InstanceSpec::default() });
            let mut machine = world.cloud(cloud).machines()[0].clone();
            (machine.boots, machine.guest.unreachable) = (boots, unreachable);
            assert_eq!(answers(&machine, now, Duration::from_secs(1)), expect, "{power:?} {os:?} {boots}");
            assert_eq!(
                answers(&machine, later(now, Duration::from_secs(1)), Duration::from_secs(1)),
                expect || boots > 0
            );
        };
        check(Power::Running, Os::Linux, 0, false, true);
        check(Power::Running, Os::Linux, 1, false, false);
        check(Power::Running, Os::Linux, 0, true, false);
        check(Power::Running, Os::Windows, 0, false, false);
        use Power::{Gone, Isolated, Pending, Rebooting, Starting, Stopped, Stopping};
        for power in [Gone, Isolated, Pending, Rebooting, Starting, Stopped, Stopping] {
            check(power, Os::Linux, 0, false, false);
        }
    }
}
