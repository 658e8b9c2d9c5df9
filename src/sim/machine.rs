//! A machine: what its cloud says of it, and the truth in the guest. The two differ for a while after each act, and
//! that is the simulator's point. Nothing in here knows a wire format.

use std::time::Duration;

use jiff::Timestamp;

/// The operating system of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Os {
    /// Linux: takes key pairs.
    #[default]
    Linux,
    /// Windows: every cloud refuses to bind a key pair to it.
    Windows,
}

/// Whether a machine is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// On; its sshd answers.
    #[default]
    Running,
    /// Off.
    Stopped,
    /// On its way up.
    Starting,
    /// On its way down.
    Stopping,
    /// Down, and coming up again.
    Rebooting,
    /// Being made (Tencent PENDING, Alibaba Pending).
    Pending,
    /// Isolated for money (Tencent SHUTDOWN, Baidu Expired): off, and no operation is allowed.
    Isolated,
    /// Released. No longer listed; kept in the world so that a checker can ask what became of it.
    Gone,
}

impl Power {
    /// The word that state pages use; the same for each cloud.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Rebooting => "rebooting",
            Self::Pending => "pending",
            Self::Isolated => "isolated",
            Self::Gone => "gone",
        }
    }
}

/// What came of an operation that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Operating,
    /// Done.
    Success,
    /// Ended without its effect.
    Failed,
}

/// An instance's latest operation, as Tencent shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The action that asked for it.
    pub action: String,
    /// The request id of that call.
    pub request_id: String,
    /// When it was accepted.
    pub started: Timestamp,
    /// How it stands.
    pub progress: Progress,
}

/// One thing that happens to a machine in the course of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes into this state. Going to Running from any other state is a boot.
    Power(Power),
    /// The cloud's record changes to these key pairs (ids).
    Record(Vec<String>),
    /// The guest's `authorized_keys` becomes these public key lines.
    Guest(Vec<String>),
    /// The operation is over, and did what it was for.
    Done,
    /// The operation is over, and did not.
    Fail,
}

/// The course of an operation: what happens how long after the call was accepted, in order.
pub type Course = Vec<(Duration, Step)>;

/// Stopping takes `time`.
pub fn stop(time: Duration) -> Course {
    through(Power::Stopping, Power::Stopped, time)
}

/// Starting takes `time`.
pub fn start(time: Duration) -> Course {
    through(Power::Starting, Power::Running, time)
}

/// A reboot takes `time`.
pub fn reboot(time: Duration) -> Course {
    through(Power::Rebooting, Power::Running, time)
}

fn through(meanwhile: Power, end: Power, time: Duration) -> Course {
    vec![(Duration::ZERO, Step::Power(meanwhile)), (time, Step::Power(end)), (time, Step::Done)]
}

/// What a look shows: the record, perhaps a moment old.
#[derive(Clone, Debug)]
pub struct View {
    /// The state.
    pub power: Power,
    /// The key pairs bound, as ids.
    pub keys: Vec<String>,
    /// The latest operation.
    pub operation: Option<Operation>,
    /// When it was booted last.
    pub booted_at: Timestamp,
}

/// What a guest does with the keys that its cloud binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Habit {
    /// Takes them in place of those that it had.
    #[default]
    Obeys,
    /// Takes them, and keeps those that it had.
    KeepsOld,
    /// Ignores them.
    Ignores,
}

/// A guest's peculiarities, which no cloud shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// What it does with the keys that are bound from now on.
    pub habit: Habit,
    /// Whether its network is cut: it runs, and nobody comes through.
    pub unreachable: bool,
    /// How long it takes to answer a connection.
    pub slow: Duration,
    /// How often its host keys were changed, by a new image or without.
    pub image: u32,
}

/// A call that this machine refuses whatever its state.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The action.
    pub action: String,
    /// The error code that the cloud answers.
    pub code: String,
}

/// An instance and its guest. Outside the simulator it is only read.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cloud's id (`lhins-…`, `ins-…`, `i-…`).
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its operating system.
    pub os: Os,
    /// Tags: the user's, and system tags such as scaling-group markers.
    pub tags: Vec<(String, String)>,
    /// Its address inside the cloud.
    pub private_address: String,
    /// Its address outside.
    pub public_address: String,
    /// When it was made.
    pub created: Timestamp,

    /// The truth about its power.
    pub power: Power,
    /// The key pairs that the cloud's record binds, as ids.
    pub record_keys: Vec<String>,
    /// The public key lines (no comment) in the guest now.
    pub accepts: Vec<String>,
    /// The lines that the next boot puts in their place (ECS and BCC: a bind waits for a boot).
    pub at_next_boot: Option<Vec<String>>,
    /// Whether a password still opens it.
    pub password: bool,
    /// How often it booted since it was added.
    pub boots: u32,
    /// When it booted last.
    pub booted_at: Timestamp,
    /// The action that took it down, until it runs again; `None` for a machine that was down from the beginning.
    pub down_because: Option<String>,
    /// Stops, starts and reboots that it went through, on request or on the cloud's own account.
    pub stops: u32,
    /// See `stops`.
    pub starts: u32,
    /// See `stops`.
    pub reboots: u32,
    /// Stopped in the mode that costs nothing (CVM STOP_CHARGING, ECS StopCharging).
    pub no_charge: bool,
    /// Bought by bids: the cloud may take it back.
    pub spot: bool,
    /// It has disks of its host.
    pub local_disk: bool,
    /// Its latest operation.
    pub operation: Option<Operation>,

    /// How often it was made anew from an image.
    pub image: u32,

    /// Its power when it was added.
    pub first_power: Power,
    /// What its guest accepted when it was added. Empty for a password-only machine.
    pub first_accepts: Vec<String>,
    /// The key pairs that were bound when it was added.
    pub first_record_keys: Vec<String>,

    /// What is peculiar to its guest.
    pub guest: Guest,

    /// Every bind that names it fails, with a code of this cloud's list for one bad instance.
    pub poisoned: bool,
    /// Operations on it never end.
    pub stuck: bool,
    /// Calls that it refuses.
    pub refusals: Vec<Refusal>,

    /// What looks still show, and until when.
    pub(super) shown: Option<(Timestamp, View)>,
    /// Counts operations, so that the steps of a superseded one are dropped.
    pub(super) generation: u64,
}

impl Machine {
    /// What a look at `now` shows: for a moment after an act, still the old state.
    pub fn view(&self, now: Timestamp) -> View {
        match &self.shown {
            Some((until, view)) if now < *until => view.clone(),
            _ => self.truth(),
        }
    }

    /// The record as it is.
    pub(super) fn truth(&self) -> View {
        View {
            power: self.power,
            keys: self.record_keys.clone(),
            operation: self.operation.clone(),
            booted_at: self.booted_at,
        }
    }

    /// Whether an operation is under way.
    pub fn is_busy(&self) -> bool {
        self.operation.as_ref().is_some_and(|operation| operation.progress == Progress::Operating)
    }

    /// The public key lines that open the machine as soon as it runs: the guest's, after the boot it needs for that.
    pub fn would_accept(&self) -> &[String] {
        match &self.at_next_boot {
            Some(lines) if self.power != Power::Running => lines,
            _ => &self.accepts,
        }
    }

    /// What the guest accepts once these lines are bound to it.
    pub(super) fn takes(&self, mut lines: Vec<String>) -> Vec<String> {
        let old = self.accepts.iter();
        match self.guest.habit {
            Habit::Obeys => lines,
            Habit::Ignores => old.cloned().collect(),
            Habit::KeepsOld => {
                let kept: Vec<String> = old.filter(|line| !lines.contains(line)).cloned().collect();
                lines.extend(kept);
                lines
            }
        }
    }

    /// The code with which it refuses `action`, if it does.
    pub fn refuses(&self, action: &str) -> Option<&str> {
        self.refusals.iter().find(|refusal| refusal.action == action).map(|refusal| refusal.code.as_str())
    }

    /// Goes into another state. Going to Running from any other is a boot.
    pub(super) fn go(&mut self, power: Power, because: &str, now: Timestamp) {
        let was = std::mem::replace(&mut self.power, power);
        if was == power {
            return;
        }
        match power {
            Power::Rebooting => self.reboots += 1,
            Power::Stopping => self.stops += 1,
            Power::Stopped if was != Power::Stopping => self.stops += 1,
            Power::Starting => self.starts += 1,
            _ => {}
        }
        if power == Power::Running {
            self.boots += 1;
            self.booted_at = now;
            self.down_because = None;
            self.no_charge = false;
            if let Some(lines) = self.at_next_boot.take() {
                self.password = lines.is_empty();
                self.accepts = lines;
            }
        } else if was == Power::Running {
            self.down_because = Some(because.to_string());
        }
    }
}
