//! Whether a rotation had better not begin: what was found out beforehand, judged. Pure: evidence in, findings out. `plan`
//! shows them, and whoever begins a rotation refuses where one of them is a refusal. It must never pass over in silence
//! what could not be tried.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::model::error::{Error, Kind};
use crate::model::{Hazard, InstanceId, KeyPairName};

use super::policy::CLOCK_DIFFERENCE_MAX;

/// From this difference of the clocks on, in seconds, it is warned: half of what refuses.
const CLOCK_DIFFERENCE_WARNS: i64 = CLOCK_DIFFERENCE_MAX / 2;
/// Key pairs of a fleet while it is rotated: the old one is deleted after the new one is proven.
pub const KEY_PAIRS_A_FLEET: usize = 2;

/// What a finding comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// To be known; a rotation begins all the same.
    Warning,
    /// No rotation begins.
    Refusal,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Our clock and the cloud's.
    Clock,
    /// Places for key pairs in the account and region.
    KeyPairs,
    /// What the access key may do.
    Permissions,
    /// Calls that the cloud says it would refuse.
    Denials,
    /// Machines that a stop could hurt.
    Hazards,
    /// Machines that lose their password login.
    Passwords,
    /// Whether the canary proves anything.
    Canary,
    /// The key that opens the jump host.
    JumpKey,
}

impl Level {
    /// Its name, as `plan --json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Refusal => "refusal",
        }
    }
}

impl Rule {
    /// Its name, as `plan --json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::KeyPairs => "key_pairs",
            Self::Permissions => "permissions",
            Self::Denials => "denials",
            Self::Hazards => "hazards",
            Self::Passwords => "passwords",
            Self::Canary => "canary",
            Self::JumpKey => "jump_key",
        }
    }
}

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it comes to.
    pub level: Level,
    /// What it is about.
    pub rule: Rule,
    /// What was found.
    pub says: String,
    /// What an operator can do about it; `None` where nothing is to be done.
    pub way_on: Option<String>,
    /// Whom it is about, where it is about some.
    pub instances: Vec<InstanceId>,
}

impl Finding {
    fn new(level: Level, rule: Rule, says: impl Into<String>) -> Self {
        Self { level, rule, says: says.into(), way_on: None, instances: Vec::new() }
    }
    fn go(mut self, way_on: impl Into<String>) -> Self {
        self.way_on = Some(way_on.into());
        self
    }
    fn about(mut self, instances: &[InstanceId]) -> Self {
        self.instances = instances.to_vec();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.says)?;
        match &self.way_on {
            Some(way_on) => write!(f, "; {way_on}"),
            None => Ok(()),
        }
    }
}

/// What was found out before a rotation.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Our clock less the cloud's, in seconds, where its answers tell.
    pub clock_difference: Option<i64>,
    /// The key pairs of the account and region; `None` where the account may not list them.
    pub key_pairs: Option<KeyPairs>,
    /// What was tried without doing it, or refused while looking.
    pub tried: Vec<Tried>,
    /// Actions that change something and that no cloud lets one try.
    pub untried: Vec<&'static str>,
    /// Why the cloud could not be asked which calls it would refuse, and the way on.
    pub unasked: Option<(Error, String)>,
    /// Whom the cloud says it would refuse.
    pub denied: Vec<InstanceId>,
    /// Who is left out because a stop could hurt it.
    pub left_out: Vec<(InstanceId, BTreeSet<Hazard>)>,
    /// Who is stopped although that could hurt it, as the fleet allows.
    pub taken_along: Vec<InstanceId>,
    /// Who is stopped without charging, and bound at rest.
    pub unbilled: Vec<InstanceId>,
    /// Who has no key pair now.
    pub loses_password: Vec<InstanceId>,
    /// Whether somebody of the canary runs.
    pub canary_runs: bool,
    /// Who was asked for its host key and who answered, where keys are proven by logins.
    pub reach: Option<Reach>,
    /// Why the jump host's key cannot be used, with the way on: nobody was asked for a host key then.
    pub jump_key: Option<String>,
}

/// The key pairs of an account in a region.
#[derive(Clone, Debug, Default)]
pub struct KeyPairs {
    /// The names of those that exist.
    pub there: Vec<KeyPairName>,
    /// How many there may be, where anybody says so.
    pub max: Option<usize>,
    /// Whether the cloud itself said it, of this account; else its pages do, of every account.
    pub told: bool,
    /// Fleets of the config file in this account and region.
    pub fleets: usize,
}

/// A call that was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its action.
    pub action: String,
    /// What came of it.
    pub result: Result<(), Error>,
    /// Whether a rotation makes it; else it only asks.
    pub needed: bool,
    /// What allows it, where it is denied.
    pub grant: String,
}

/// Who of the machines that could be the canary answers.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// So many were asked.
    pub asked: usize,
    /// So many of them answered.
    pub answered: usize,
    /// The canary's size.
    pub canary: usize,
}

/// Judges everything that was found out, the gravest first.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = vec![clock(evidence.clock_difference)];
    findings.extend(evidence.key_pairs.as_ref().map(key_pairs));
    findings.extend(permissions(&evidence.tried, &evidence.untried));
    findings.extend(denials(evidence));
    findings.extend(hazards(evidence));
    findings.extend(passwords(&evidence.loses_password));
    findings.extend(canary(evidence));
    findings.extend(evidence.jump_key.as_deref().map(jump_key));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

/// Whether no rotation may begin.
pub fn refusals(findings: &[Finding]) -> Vec<Finding> {
    findings.iter().filter(|finding| finding.level == Level::Refusal).cloned().collect()
}

/// The refusal where the jump host's key cannot be used: nobody would be reached, and everybody would be a straggler.
pub fn jump_key(problem: &str) -> Finding {
    Finding::new(Level::Refusal, Rule::JumpKey, problem)
}

fn clock(difference: Option<i64>) -> Finding {
    let Some(difference) = difference else {
        // As the guard has it: an answer without a Date is no reason to refuse.
        let says = "the cloud's answers bear no Date: whether our clock stands well is not known";
        return Finding::new(Level::Warning, Rule::Clock, says).go("look whether a proxy takes the header off");
    };
    let way_on = "set this machine's clock (NTP)";
    let off = format!(
        "our clock is {} s {} the cloud's",
        difference.abs(),
        if difference < 0 { "behind" } else { "ahead of" }
    );
    match difference.abs() {
        seconds if seconds > CLOCK_DIFFERENCE_MAX => Finding::new(
            Level::Refusal,
            Rule::Clock,
            format!("{off}: nothing is disturbed beyond {CLOCK_DIFFERENCE_MAX} s"),
        )
        .go(way_on),
        CLOCK_DIFFERENCE_WARNS.. => Finding::new(
            Level::Warning,
            Rule::Clock,
            format!("{off}: at more than {CLOCK_DIFFERENCE_MAX} s a rotation is held"),
        )
        .go(way_on),
        _ => Finding::new(Level::Ok, Rule::Clock, off),
    }
}

fn key_pairs(pairs: &KeyPairs) -> Finding {
    let there = pairs.there.len();
    let Some(max) = pairs.max else {
        let says = format!("{there} in the account and region; its cloud documents no quota");
        return Finding::new(Level::Ok, Rule::KeyPairs, says);
    };
    let by = if pairs.told { "by the account's quota" } else { "by the cloud's pages" };
    let taken = format!("{there} of {max} places in the account and region are taken ({by})");
    let free = "delete one that nobody hangs on, or have the quota raised";
    if there >= max {
        // What only the pages say may have been raised for this account; the import tells, and disturbs nobody.
        return match pairs.told {
            true => {
                Finding::new(Level::Refusal, Rule::KeyPairs, format!("{taken}, and a rotation imports one")).go(free)
            }
            false => Finding::new(
                Level::Warning,
                Rule::KeyPairs,
                format!("{taken}: the import fails unless the quota was raised, before anybody is disturbed"),
            )
            .go(free),
        };
    }
    let strangers = pairs.there.iter().filter(|name| !is_rekeyds(name)).count();
    let needed = strangers + KEY_PAIRS_A_FLEET * pairs.fleets;
    if needed > max {
        let says = format!(
            "{taken}; the {} fleets of the config file there take up to {needed} with {strangers} of others: \
             {KEY_PAIRS_A_FLEET} a fleet while it is rotated",
            pairs.fleets
        );
        return Finding::new(Level::Warning, Rule::KeyPairs, says)
            .go("rotate them one after the other, delete what nobody hangs on, or have the quota raised");
    }
    Finding::new(Level::Ok, Rule::KeyPairs, taken)
}

/// Whether a name is of the form that rekeyd gives, whatever installation's: `plan` may not know the mark.
fn is_rekeyds(name: &KeyPairName) -> bool {
    let Some((mark, rest)) = name.as_str().strip_prefix("rk").and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let legal = |text: &str| text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (1..=6).contains(&mark.len()) && rest.len() == 16 && legal(mark) && legal(rest)
}

fn permissions(tried: &[Tried], untried: &[&'static str]) -> Vec<Finding> {
    let mut says = "looks are allowed".to_string();
    let passed: Vec<&str> = tried.iter().filter(|one| one.result.is_ok()).map(|one| one.action.as_str()).collect();
    let mut findings = Vec::new();
    for one in tried {
        let Err(error) = &one.result else { continue };
        findings.push(match (error.kind, one.needed) {
            (Kind::Denied, needed) => {
                let level = if needed { Level::Refusal } else { Level::Warning };
                Finding::new(level, Rule::Permissions, format!("denied: {error}")).go(&*one.grant)
            }
            (_, true) => {
                let text = format!("a dry run of {} would fail: {error}", one.action);
                Finding::new(Level::Warning, Rule::Permissions, text)
            }
            (_, false) => Finding::new(Level::Warning, Rule::Permissions, format!("could not be asked: {error}")),
        });
    }
    if !findings.is_empty() {
        says = "other looks are allowed".to_string();
    }
    if !passed.is_empty() {
        says += &format!("; {} would be taken (dry run)", passed.join(", "));
    }
    if !untried.is_empty() {
        says += &format!("; cannot be tried without being done: {}", untried.join(", "));
    }
    findings.push(Finding::new(Level::Ok, Rule::Permissions, says));
    findings
}

fn denials(evidence: &Evidence) -> Option<Finding> {
    if let Some((error, way_on)) = &evidence.unasked {
        let says = format!("the cloud could not be asked which calls it would refuse: {error}");
        let finding = Finding::new(Level::Warning, Rule::Denials, says);
        return Some(if error.kind == Kind::Denied { finding.go(&**way_on) } else { finding });
    }
    let ids = &evidence.denied;
    (!ids.is_empty()).then(|| {
        let says = format!("left out, since the cloud says it would refuse a call: {}", ids.len());
        Finding::new(Level::Warning, Rule::Denials, says)
            .go("put right what `excluded` names, or take them out of the selection")
            .about(ids)
    })
}

fn hazards(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !evidence.left_out.is_empty() {
        let ids: Vec<InstanceId> = evidence.left_out.iter().map(|(id, _)| id.clone()).collect();
        let found: BTreeSet<Hazard> =
            evidence.left_out.iter().flat_map(|(_, hazards)| hazards.iter().copied()).collect();
        let words = found.iter().map(|hazard| hazard.name()).collect::<Vec<_>>().join(", ");
        let says = format!("left out, since a stop could hurt them: {} ({words})", ids.len());
        let finding = Finding::new(Level::Warning, Rule::Hazards, says).about(&ids);
        findings.push(finding.go(format!("power: {{ allow: [{words}] }} of the fleet takes them along")));
    }
    if !evidence.taken_along.is_empty() {
        let ids = &evidence.taken_along;
        let says = format!("stopped although that could hurt them, as power: allow says: {}", ids.len());
        findings.push(Finding::new(Level::Warning, Rule::Hazards, says).about(ids));
    }
    if !evidence.unbilled.is_empty() {
        let ids = &evidence.unbilled;
        let says = format!(
            "stopped without charging: {}: they are bound at rest, and their next start may be refused for lack of stock",
            ids.len()
        );
        findings.push(Finding::new(Level::Warning, Rule::Hazards, says).about(ids));
    }
    findings
}

fn passwords(losing: &[InstanceId]) -> Option<Finding> {
    (!losing.is_empty()).then(|| {
        let says = format!(
            "{} without a key pair now: a bind ends their last password login, and no bind brings it back",
            losing.len()
        );
        Finding::new(Level::Warning, Rule::Passwords, says).about(losing)
    })
}

fn canary(evidence: &Evidence) -> Option<Finding> {
    const PROVES_NOTHING: &str = "the canary proves nothing before the others are bound";
    if !evidence.canary_runs {
        let says = format!("no machine that could be the canary runs: {PROVES_NOTHING}");
        return Some(Finding::new(Level::Warning, Rule::Canary, says));
    }
    let reach = evidence.reach.as_ref()?;
    let Reach { asked, answered, canary } = *reach;
    let way_on = "let this machine reach their sshd: verify names user, port and address";
    Some(match answered {
        0 => {
            let says = format!("none of {asked} running machines that were asked answers at sshd: {PROVES_NOTHING}");
            Finding::new(Level::Warning, Rule::Canary, says).go(way_on)
        }
        _ if answered < canary => {
            let says =
                format!("{answered} of {asked} that were asked answer at sshd, fewer than the canary's {canary}");
            Finding::new(Level::Warning, Rule::Canary, says).go(way_on)
        }
        _ => {
            let says = format!("drawn from those that answer at sshd: {answered} of {asked} that were asked");
            Finding::new(Level::Ok, Rule::Canary, says)
        }
    })
}

#[cfg(test)]
#[path = "tests/preflight.rs"]
mod tests;
