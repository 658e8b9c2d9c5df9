//! `rekeyd sim`: four simulated clouds on loopback, until it is told to end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::daemon::SharedEnv;
use crate::model::parse_duration;
use crate::sim::Faults;
use crate::sim::guest::{self, Down, Sshd};
use crate::sim::serve::{Options, serve};

use super::signals::Signals;
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Tagged machines in each cloud; strangers' machines come on top
    #[arg(long, default_value_t = 10)]
    instances: usize,
    /// So many fleets share them by turns: each machine bears the tag `fleet` besides, fleet-0, fleet-1 and so on
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    fleets: usize,
    /// Write what a client needs to know there once the clouds answer
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// The seed of ids, credentials, fleets and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Between a request's arrival and its answer
    #[arg(long, default_value = "20ms", value_parser = parse_duration)]
    latency: Duration,
    /// How long stops, starts, reboots and binds take
    #[arg(long, default_value = "200ms", value_parser = parse_duration)]
    operation_time: Duration,
    /// What goes wrong: throttle=P, error500=P, lost=P, late=P:DURATION, delay=P:DURATION, rubbish=P, opfail=P,
    /// halfdone=P, flat=P (CVM's legacy endpoint answers in its oldest shape), poison=N, poison=ID, skew=DURATION, separated by commas
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SPEC")]
    faults: Faults,
    /// Put a real sshd behind each running Linux instance, at a loopback address of its own that its cloud shows
    ///
    /// It takes the keys that the guest accepts at that moment, and each session prints the instance's id. Tests meddle
    /// over the control port: POST /meddle?NAME=ID with unreachable, old-key-stays, never-accepts, slow (ID:DURATION),
    /// well, stopped, running, unbilled, spot, local-disk or refuses (ID:ACTION:CODE), and of a cloud denies
    /// (PROVIDER:ACTION) or key-pairs-max (PROVIDER:NUMBER), several separated by &; POST /reimage?instance=ID;
    /// POST /hostkey?instance=ID.
    #[arg(long, verbatim_doc_comment)]
    sshd: bool,
    /// Who may log in [default: who runs this; another one only as root]
    #[arg(long, value_name = "USER", requires = "sshd")]
    ssh_user: Option<String>,
    /// The port of every guest; 0 for one that the system hands out
    #[arg(long, default_value_t = guest::PORT, value_name = "PORT", requires = "sshd")]
    ssh_port: u16,
    /// What comes back from a machine that is down: refused or silent
    #[arg(long, default_value = "refused", value_name = "HOW", requires = "sshd")]
    ssh_down: Down,
    /// How long after a machine runs its sshd comes up
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "DURATION", requires = "sshd")]
    ssh_delay: Duration,
}

impl Arguments {
    fn sshd(&self, env: &SharedEnv) -> Option<Sshd> {
        self.sshd.then(|| Sshd {
            port: self.ssh_port,
            user: self.ssh_user.clone(),
            down: self.ssh_down,
            delay: self.ssh_delay,
            ..Sshd::under(above(env))
        })
    }
}

/// Where directories that end with this process are made.
pub(super) fn above(env: &SharedEnv) -> PathBuf {
    env("TMPDIR").filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let running = serve(Options {
        instances: arguments.instances,
        fleets: arguments.fleets,
        ready_file: arguments.ready_file.clone(),
        seed: arguments.seed,
        latency: arguments.latency,
        operation_time: arguments.operation_time,
        faults: arguments.faults.clone(),
        sshd: arguments.sshd(&scene.env),
    })
    .await?;
    for cloud in &running.ready().clouds {
        scene.out.line(format!(
            "{:<18}  {}  region {}  {} tagged instances",
            cloud.provider.to_string(),
            cloud.endpoint,
            cloud.region,
            cloud.instances
        ));
    }
    scene.out.line(format!("{:<18}  {}/state", "control", running.ready().control));
    if let Some(ssh) = running.ready().clouds.iter().find_map(|cloud| cloud.ssh.as_ref()) {
        scene.out.line(format!("{:<18}  {} at port {} of each instance's address", "ssh", ssh.user, ssh.port));
    }
    running.until(signals.next()).await;
    Ok(Exit::Done)
}
