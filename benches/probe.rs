//! Proofs a second, and what one costs us, beside `ssh` in a loop against the same server. A plain program, not run by
//! the tests: `cargo bench --bench probe [-- PROOFS]`. It needs openssh-server and openssh-client. Our CPU includes
//! that of starting each sshd, which is done from this process; `ssh`'s own is not shown.

#![allow(clippy::unwrap_used)] // a program that measures stops where something is missing

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekeyd::clock::SystemClock;
use rekeyd::ssh::{Login, LoginProbe, SshProbe, Target, generate};

#[allow(dead_code)] // the tests use more of it
#[path = "../tests/probe/sshd.rs"]
mod sshd;

/// How many log in at once.
const AT_ONCE: usize = 16;

/// CPU time of this process, and of its children that have ended, which are the sshd (and `ssh`) processes: ticks of 10 ms,
/// as /proc has it.
fn cpu() -> (Duration, Duration) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // utime and stime are the 14th and 15th field; the second may hold spaces, and ends with a bracket.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |from: usize| fields[from].parse::<u64>().unwrap() + fields[from + 1].parse::<u64>().unwrap();
    (Duration::from_millis(ticks(11) * 10), Duration::from_millis(ticks(13) * 10))
}

/// `before`: the CPU times at the beginning. What sshd itself costs is its ceiling on these cores, whoever logs in.
fn row(what: &str, count: usize, wall: Duration, before: Option<(Duration, Duration)>) {
    let rate = count as f64 / wall.as_secs_f64();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / count as f64;
    let (ours, ceiling) = match before.map(|before| (before, cpu())) {
        Some((before, now)) => {
            let sshd = each(now.1 - before.1);
            let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
            (format!("{:.2}", each(now.0 - before.0)), format!("{sshd:.1} ({:.0} a second)", cores * 1000.0 / sshd))
        }
        None => ("-".to_string(), "-".to_string()),
    };
    println!("{what:<40} {rate:>9.1} {ours:>20} {ceiling:>28}");
}

#[tokio::main]
async fn main() {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(200_usize);
    println!(
        "{:<40} {:>9} {:>20} {:>28}",
        format!("{count} each"),
        "a second",
        "our CPU, ms a proof",
        "sshd's CPU, ms (its ceiling)"
    );
    let setup = sshd::Setup { owner: sshd::Owner::Ordinary, config: "LogLevel QUIET", ..Default::default() };
    for bits in [2048, 4096] {
        let (server, key) = (sshd::Sshd::start(&setup), generate(bits, "bench").unwrap());
        server.take(&[key.public()]);
        let pin = server.host_key("ed25519");
        let target = Target { connect_timeout: Duration::from_secs(60), ..server.target() };
        let probe = Arc::new(SshProbe::new(Arc::new(SystemClock)));
        for at_once in [1, AT_ONCE] {
            for signs in [true, false] {
                let (began, before) = (Instant::now(), cpu());
                let mut tasks = tokio::task::JoinSet::new();
                for worker in 0..at_once {
                    let (probe, target, pin, key) = (probe.clone(), target.clone(), pin.clone(), key.clone());
                    tasks.spawn(async move {
                        for _ in (worker..count).step_by(at_once) {
                            let told = match signs {
                                true => probe.login(&target, Some(&pin), &key).await,
                                false => probe.offer(&target, Some(&pin), key.public()).await,
                            };
                            assert!(matches!(told, Login::Accepted(_)), "{told:?}");
                        }
                    });
                }
                while let Some(done) = tasks.join_next().await {
                    done.unwrap();
                }
                let what = if signs { "login" } else { "offer" };
                row(&format!("{what}, RSA {bits}, {at_once} at once"), count, began.elapsed(), Some(before));
            }
        }
        // The key and the known host in files, as `ssh` wants them.
        let file = server.write("key", key.expose());
        let ssh = |target: &Target| {
            let mut ssh = Command::new("ssh");
            ssh.arg("-i").arg(&file).args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
            ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]);
            // The user's shell refuses the command: the login is over, which is all that is compared.
            ssh.args(["-p", &target.port.to_string(), &format!("{}@{}", target.user, target.host), "true"]);
            ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            ssh
        };
        for at_once in [1, AT_ONCE] {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for worker in 0..at_once {
                    let (ssh, target) = (&ssh, &target);
                    scope.spawn(move || {
                        (worker..count).step_by(at_once).for_each(|_| {
                            assert!(ssh(target).status().unwrap().code().is_some_and(|code| code != 255))
                        });
                    });
                }
            });
            row(&format!("ssh in a loop, RSA {bits}, {at_once} at once"), count, began.elapsed(), None);
        }
    }
}
