//! Tables over the brain: a journal in, steps out; a look in, a finding or a want out. What is expected here comes from the
//! design, never from the code. The notation is read by [`Story`] and [`seen`].

mod adopt;
mod back;
mod deadlines;
mod deliver;
mod drift;
mod exposure;
mod faults;
mod fold;
mod judge;
mod known;
mod luck;
mod next;
mod order;
mod pace;
mod proof;
mod retire;
mod story;
mod world;

use story::Story;

use crate::model::error::{Blame, Effect, Error, Kind};
use crate::model::{Disruption, HostKey, Image, Instance, Operation, Pin, Power, Select};
use crate::model::{Duration, JournalId, KeyPairId, PrivateKey, ProviderKind, Region, Timestamp};

use super::policy::later;
use super::*;

/// Second 0 of every story.
fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    later(start, Duration::from_secs(seconds))
}

fn seconds(at_: Timestamp) -> i64 {
    at_.duration_since(at(0)).as_secs()
}

fn disruption(cloud: &str) -> Disruption {
    match cloud {
        "lighthouse" => Disruption::StopsInstance,
        "cvm" => Disruption::NeedsStopped,
        "ecs" => Disruption::NeedsReboot,
        "bcc" => Disruption::RebootsInstance,
        other => panic!("{other} is no cloud"),
    }
}

fn place() -> Place {
    Place {
        account: "main".into(),
        provider: ProviderKind::AlibabaEcs,
        endpoint: None,
        region: Region::new("somewhere"),
    }
}

fn power(letter: char) -> Power {
    match letter {
        'r' => Power::Running,
        's' => Power::Stopped,
        'c' => Power::Changing,
        'g' => Power::Gone,
        'o' => Power::Other,
        other => panic!("{other} is no power"),
    }
}

fn letter(power: Power) -> char {
    match power {
        Power::Running => 'r',
        Power::Stopped => 's',
        Power::Changing => 'c',
        Power::Gone => 'g',
        Power::Other => 'o',
    }
}

fn step(word: &str, batch: u32) -> Step {
    match word {
        "store" => Step::StoreKey,
        "import" => Step::ImportKey,
        "settle" => Step::Settle(batch),
        "stop" => Step::Prepare(batch),
        "bind" => Step::Bind(batch),
        "start" | "reboot" => Step::Activate(batch),
        "deliver" => Step::Deliver,
        "delete" => Step::RetireKeyPair,
        "destroy" => Step::DestroyPrivateKey,
        "verify" => Step::Verify(batch),
        other => panic!("{other} is no step"),
    }
}

fn call(word: &str) -> Call {
    match word {
        "store" => Call::Put,
        "import" => Call::Import,
        "stop" => Call::Stop,
        "bind" => Call::Bind,
        "start" => Call::Start,
        "reboot" => Call::Reboot,
        "deliver" => Call::Deliver,
        "delete" => Call::Delete,
        "destroy" => Call::Destroy,
        other => panic!("{other} is no call"),
    }
}

fn error(kind: Kind, effect: Effect, blame: Blame) -> Error {
    Error {
        kind,
        effect,
        blame,
        action: "Act".into(),
        code: "Code".into(),
        message: String::new(),
        request_id: None,
        retry_after: None,
    }
}

/// The error that a word stands for: `refused` this instance's fault · `lost` nobody knows · the others, the request's.
fn error_of(word: &str) -> Option<Error> {
    let done_not = |kind| error(kind, Effect::NotDone, Blame::Request);
    Some(match word {
        "refused" => error(Kind::InvalidState, Effect::NotDone, Blame::Instance),
        "lost" => error(Kind::Unavailable, Effect::Unknown, Blame::Request),
        "rubbish" => error(Kind::Protocol, Effect::Unknown, Blame::Request),
        "away" => done_not(Kind::Unavailable),
        "throttled" => done_not(Kind::Throttled),
        "denied" => error(Kind::Denied, Effect::NotDone, Blame::Account),
        "quota" => error(Kind::Quota, Effect::NotDone, Blame::Account),
        "inuse" => done_not(Kind::InUse),
        "strange" => Error { code: STRANGE.to_string(), ..done_not(Kind::Unavailable) },
        "cutoff" => Error { code: super::proof::CUT_OFF.to_string(), ..done_not(Kind::Unavailable) },
        _ => return None,
    })
}

/// `a=r/old@b1`: instance, power, keys, boot marker.
fn found(word: &str) -> Found {
    let (id, rest) = word.split_once('=').unwrap_or_else(|| panic!("not found: {word}"));
    let (rest, boot) = match rest.split_once('@') {
        Some((rest, boot)) => (rest, Some(boot.to_string())),
        None => (rest, None),
    };
    let (state, keys) = rest.split_once('/').unwrap_or((rest, "old"));
    let keys = keys.split('+').filter(|key| !key.is_empty()).map(KeyPairId::from).collect();
    Found { instance: id.into(), power: power(state.chars().next().unwrap()), keys, boot }
}

/// A look, `POWER KEY… @BOOT op=REQUEST busy failed`: `op=-` is an operation without an id, `busy` one under way.
fn seen(id: &str, look: &str) -> Instance {
    let mut words = look.split_whitespace();
    let state = power(words.next().unwrap().chars().next().unwrap());
    let (mut keys, mut boot, mut operation) = (Vec::new(), None, None::<Operation>);
    for word in words {
        if let Some(marker) = word.strip_prefix('@') {
            boot = Some(marker.to_string());
        } else if word.starts_with("op=") || word == "busy" || word == "failed" {
            let none = || Operation { request_id: None, running: false, failed: false };
            let operation = operation.get_or_insert_with(none);
            operation.running |= word == "busy";
            operation.failed |= word == "failed";
            let request = word.strip_prefix("op=").filter(|request| *request != "-");
            operation.request_id = request.map(str::to_string).or(operation.request_id.take());
        } else {
            keys.push(word.into());
        }
    }
    Instance {
        id: id.into(),
        name: id.into(),
        power: state,
        state: format!("{state:?}"),
        keys,
        boot,
        operation,
        unfit: None,
        hazards: Default::default(),
        tags: Default::default(),
        zone: None,
        image: None,
        private_address: None,
        public_address: None,
    }
}

fn show_finding(finding: &Finding) -> String {
    match finding {
        Finding::Gone => "gone".into(),
        Finding::Stopped => "stopped".into(),
        Finding::Changing => "changing".into(),
        Finding::Bound(bound) => {
            let boot = bound.boot.as_ref().map(|boot| format!("@{boot}")).unwrap_or_default();
            format!("bound {}{boot}", letter(bound.power))
        }
        Finding::Activated => "active".into(),
        Finding::Running => "running".into(),
        Finding::Excluded(reason) => format!("out {}", show_exclusion(reason)),
        Finding::OperationFailed(call) => format!("{} failed", call.name()),
    }
}

fn show_exclusion(reason: &Exclusion) -> &'static str {
    match reason {
        Exclusion::Refused(_) => "refused",
        Exclusion::Drifted { .. } => "drifted",
        Exclusion::StopMissed => "stop missed",
        Exclusion::SettleMissed => "settle missed",
        Exclusion::NotReady { .. } => "not ready",
        Exclusion::LeftOff => "left off",
        Exclusion::Unproven { .. } => "unproven",
    }
}

fn show_want(want: &Want) -> String {
    match want {
        Want::Nothing => "nothing".into(),
        Want::Wait => "wait".into(),
        Want::Call(call) => call.name().into(),
        Want::Record(finding) => format!("record {}", show_finding(finding)),
    }
}

/// `held · settle 0, activate 0 · wake 20 · ! ended completed`; an open journal says nothing of itself.
fn show_next(next: &Next) -> String {
    let mut parts = Vec::new();
    match next.standing {
        Standing::Open => {}
        Standing::Held => parts.push("held".to_string()),
        Standing::Ended => parts.push("ended".to_string()),
    }
    let steps: Vec<String> = next.run.iter().map(|step| step.to_string().replace("batch ", "")).collect();
    if !steps.is_empty() {
        parts.push(steps.join(", "));
    }
    if let Some(wake) = next.wake {
        parts.push(format!("wake {}", seconds(wake)));
    }
    for event in &next.record {
        parts.push(match event {
            Event::Held { reason: HoldReason::StartRefused { instances } } => {
                let ids: Vec<&str> = instances.iter().map(|id| id.as_str()).collect();
                format!("! held start_refused {}", ids.join(" "))
            }
            Event::Held { reason: HoldReason::Step { step, .. } } => {
                format!("! held {}", step.to_string().replace("batch ", ""))
            }
            Event::Held { reason } => format!("! held {}", reason.kind()),
            Event::Ended { outcome } => format!("! ended {outcome}"),
            other => format!("! {}", other.name()),
        });
    }
    parts.join(" · ")
}
