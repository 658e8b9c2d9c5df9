//! The `fleets` of the file: which machines, when, how carefully. What a fleet does not say, `defaults` say, and what
//! those do not say has a default here, except what nobody should get unasked: `verify`.

use std::collections::{BTreeMap, BTreeSet};

use super::Cloud;
use super::account::Account;
use super::fields::{Field, Group, Quote, nearest, parse_bool};
use super::power::{self, Power};
use super::report::{At, Report};
use super::schedule::{self, Schedule};
use super::tree::Value;
use super::verify;
use super::{care, deliver};
use crate::model::{AccountName, Amount, Duration, ProviderKind, Region, parse_duration};
use crate::provider::{Hazard, Select};
use crate::rotation::preflight::KEY_PAIRS_A_FLEET;
use crate::rotation::{Delivery, Hooks, Verify, Windows};

/// The keys of a fleet, and of `defaults`.
pub(super) const KEYS: [&str; 18] = [
    "account",
    "region",
    "tags",
    "all_instances",
    "schedule",
    "schedule_slack",
    "schedule_jitter",
    "timezone",
    "key",
    "rollout",
    "windows",
    "freeze",
    "hooks",
    "deliver",
    "power",
    "verify",
    "retire",
    "catch_up",
];

/// A fleet: the machines that share a key pair.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Its account, which is in the same file.
    pub account: AccountName,
    /// Its region.
    pub region: Region,
    /// Its machines: by tags, or all.
    pub select: Select,
    /// When it is due; `None`: by hand only.
    pub schedule: Option<Schedule>,
    /// RSA bits: 2048, 3072 or 4096 (the default).
    pub key_bits: u16,
    /// How the change is spread.
    pub rollout: Rollout,
    /// Whether a stop may cut the power. Default: no.
    pub force_stop: bool,
    /// Machines with these hazards are stopped all the same. Default: none.
    pub allow: BTreeSet<Hazard>,
    /// How a new key is proven.
    pub verify: Verify,
    /// From a superseded pair's deletion to the destruction of its private half. Default 7 days.
    pub grace: Duration,
    /// When it may be disturbed. Default always.
    pub windows: Windows,
    /// What is run around each batch. Default nothing.
    pub hooks: Hooks,
    /// Where the private half goes besides custody, once the key is proven. Default nowhere.
    pub deliver: Vec<Delivery>,
    /// What becomes of machines that came after the last rotation. Default: they are reported.
    pub catch_up: CatchUp,
}

/// What becomes of machines that came after the last rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// They are told of, and left as they are.
    Report,
    /// They are bound to the fleet's key by themselves, which disturbs them.
    Auto,
}

/// How a change is spread over a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The first batch; at least one machine. Default 1.
    pub canary: Amount,
    /// The largest batch, never more than the provider binds at once, which is the default.
    pub batch_max: usize,
    /// So many may be down at once because of us; never 0. Default 10%.
    pub unavailable_max: Amount,
    /// So many may fail before the rotation is held; 0 holds at the first. Default 5%.
    pub failures_max: Amount,
    /// Each batch is so many times as large as the one before, 1 to 100. Default 4.
    pub growth: u32,
    /// So many failures in a row hold the rotation; at least 1. Default 3.
    pub failures_in_a_row: u32,
    /// Waited after the canary, after each growth step and before retiring. Default 10 minutes.
    pub soak: Duration,
}

/// A fleet and where the file says what.
pub(super) struct Placed {
    pub(super) fleet: Fleet,
    pub(super) at: At,
}

impl Fleet {
    /// Reads one fleet over its defaults.
    pub(super) fn read<'a>(
        report: &mut Report,
        field: &Field<'a>,
        defaults: Option<&Field<'a>>,
        accounts: &[(&str, Option<Account>)],
        clouds: &dyn Fn(ProviderKind) -> Cloud,
    ) -> Option<Placed> {
        let mut group = Group::open(report, field, &KEYS, Quote::Keys);
        if let Some(defaults) = defaults {
            let base = Group::open(report, defaults, &KEYS, Quote::Keys);
            group = group.over(base);
        }
        let account = read_account(report, &group, accounts);
        let provider = account.and_then(|name| find(accounts, name)).map(|account| account.provider);
        let region = group
            .need(report, "region", "write the cloud's region, as the cloud spells it")
            .and_then(|field| field.parse(report, parse_region));
        let select = read_select(report, &group);
        let schedule = schedule::read(report, &group);
        let key = group.group(report, "key", &["bits"]);
        let key_bits = key.parse(report, "bits", parse_bits).unwrap_or(4096);
        let spared = provider.filter(|provider| !clouds(*provider).endangers);
        let Power { force_stop, allow } = power::read(report, &group, spared);
        let retire = group.group(report, "retire", &["grace"]);
        let grace = retire.parse(report, "grace", bounded_duration).unwrap_or(Duration::from_secs(7 * 24 * 3600));
        let catch_up = group.parse(report, "catch_up", parse_catch_up).unwrap_or(CatchUp::Report);
        let rollout = read_rollout(report, &group, provider, clouds);
        let verify = verify::read(report, &group);
        let hooks = care::read_hooks(report, &group);
        let deliver = deliver::read(report, &group);
        let takes = provider.map(|provider| clouds(provider).batch_time + hooks.takes());
        let windows = care::read_windows(report, &group, takes, schedule.as_ref());
        let fleet = Fleet {
            account: AccountName::new(account?),
            region: region?,
            select: select?,
            schedule,
            key_bits,
            rollout,
            force_stop,
            allow,
            verify: verify?,
            grace,
            catch_up,
            windows,
            hooks,
            deliver,
        };
        Some(Placed { fleet, at: group.at })
    }
}

/// The account of this name, if it could be read.
fn find<'f>(accounts: &'f [(&str, Option<Account>)], name: &str) -> Option<&'f Account> {
    accounts.iter().find(|(have, _)| *have == name).and_then(|(_, account)| account.as_ref())
}

fn parse_catch_up(text: &str) -> Result<CatchUp, String> {
    match text {
        "report" => Ok(CatchUp::Report),
        "auto" => Ok(CatchUp::Auto),
        _ => Err("write report or auto".to_string()),
    }
}

fn read_account<'a>(report: &mut Report, group: &Group<'a>, accounts: &[(&str, Option<Account>)]) -> Option<&'a str> {
    let names: Vec<&str> = accounts.iter().map(|(name, _)| *name).collect();
    let list = if names.is_empty() { "none".to_string() } else { names.join(", ") };
    let field = group.need(report, "account", &format!("write one of the accounts in this file ({list})"))?;
    let name = field.text(report)?;
    if !names.contains(&name) {
        let hint = nearest(name, &names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        report.problem(&field.at, format!("unknown account {name:?}{hint} (accounts in this file: {list})"));
        return None;
    }
    Some(name)
}

/// `tags` or `all_instances: true`, one of them, in the fleet itself.
fn read_select(report: &mut Report, group: &Group<'_>) -> Option<Select> {
    let all = match group.own("all_instances") {
        Some(field) => field.parse(report, parse_bool)?,
        None => false,
    };
    match (group.own("tags"), all) {
        (None, true) => Some(Select::All),
        (None, false) => {
            report.problem(
                &group.at,
                "selects no machine: write tags: { NAME: VALUE }, or all_instances: true for all of the account in the region",
            );
            None
        }
        (Some(field), true) => {
            report.problem(&field.at, "stands beside all_instances: true; keep one of them");
            None
        }
        (Some(field), false) => {
            let entries = field.entries(report);
            if entries.is_empty() && matches!(field.node.value, Value::Map(_)) {
                report.problem(
                    &field.at,
                    "is empty and would select nothing or everything; write all_instances: true for all",
                );
                return None;
            }
            let mut tags = BTreeMap::new();
            for (key, value) in entries {
                if key.is_empty() {
                    report.problem(&value.at, "a tag needs a name");
                }
                tags.insert(key.to_string(), value.text(report)?.to_string());
            }
            Some(Select::Tags(tags))
        }
    }
}

fn read_rollout(
    report: &mut Report,
    group: &Group<'_>,
    provider: Option<ProviderKind>,
    clouds: &dyn Fn(ProviderKind) -> Cloud,
) -> Rollout {
    let keys = ["canary", "growth", "batch_max", "unavailable_max", "failures_max", "failures_in_a_row", "soak"];
    let rollout = group.group(report, "rollout", &keys);
    let canary = rollout.parse(report, "canary", |text| {
        nonzero(parse_amount(text)?, "a canary is at least 1 machine: it is what tells whether the way works")
    });
    let unavailable_max = rollout.parse(report, "unavailable_max", |text| {
        nonzero(
            parse_amount(text)?,
            "at 0 nothing could ever be bound: a bind takes a machine down for a moment; write 1",
        )
    });
    let failures_max = rollout.parse(report, "failures_max", parse_amount);
    let soak = rollout.parse(report, "soak", bounded_duration);
    let growth = rollout.parse(report, "growth", |text| match text.parse::<u32>() {
        Ok(growth @ 1..=100) => Ok(growth),
        _ => Err(format!("{text:?} is no factor from 1 (every batch is as small as the canary) to 100")),
    });
    let failures_in_a_row = rollout.parse(report, "failures_in_a_row", |text| match text.parse::<u32>() {
        Ok(0) => Err("0 would hold before anything has failed; 1 holds at the first failure".to_string()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("{text:?} is no number of failures")),
    });

    let bind_max = provider.map_or(usize::MAX, |provider| clouds(provider).bind_max);
    let batch_max = rollout.parse(report, "batch_max", |text| match text.parse::<u32>() {
        Ok(0) => Err("a batch of 0 would never bind anything; write 1 or more".to_string()),
        Ok(count) => Ok(count as usize),
        Err(_) => Err(format!("{text:?} is no number of machines")),
    });
    if let (Some(wanted), Some(field), Some(provider)) = (batch_max, rollout.get("batch_max"), provider)
        && wanted > bind_max
    {
        report.note(&field.at, format!("{wanted} is capped at {bind_max} by {provider}"));
    }
    let batch_max = batch_max.unwrap_or(bind_max).min(bind_max);
    let canary = canary.unwrap_or(Amount::Count(1));
    if let (Amount::Count(count), Some(field)) = (canary, rollout.get("canary"))
        && count as usize > batch_max
    {
        report.problem(
            &field.at,
            format!("{count} is more than the largest batch ({batch_max}); the canary comes first and small"),
        );
    }
    Rollout {
        canary,
        batch_max,
        unavailable_max: unavailable_max.unwrap_or(Amount::Percent(10)),
        failures_max: failures_max.unwrap_or(Amount::Percent(5)),
        growth: growth.unwrap_or(4),
        failures_in_a_row: failures_in_a_row.unwrap_or(3),
        soak: soak.unwrap_or(Duration::from_secs(600)),
    }
}

/// Fleets that would fight over machines: in one place, each machine of one is of the other too.
pub(super) fn check_overlap(report: &mut Report, fleets: &[(&str, Placed)], accounts: &[(&str, Option<Account>)]) {
    let same_account = |a: &AccountName, b: &AccountName| {
        let found = |name: &AccountName| find(accounts, name.as_str());
        a == b || found(a).zip(found(b)).is_some_and(|(a, b)| a.is_same(b))
    };
    for (index, (name, later)) in fleets.iter().enumerate() {
        for (other, earlier) in &fleets[..index] {
            let (a, b) = (&later.fleet, &earlier.fleet);
            if a.region == b.region && same_account(&a.account, &b.account) && overlaps(&a.select, &b.select) {
                report.problem(
                    &later.at,
                    format!(
                        "{name} and {other} (line {}) select the same machines of one account and region: the tags of \
                         one contain the other's; a machine hangs on one key pair, so tell the fleets apart by a tag",
                        earlier.at.line
                    ),
                );
            }
        }
    }
}

/// Fleets that together may need more key pairs than their account can hold in their region. It is a note: they may be
/// rotated one after the other, and the account's own quota may be another.
pub(super) fn note_key_pairs(
    report: &mut Report,
    fleets: &[(&str, Placed)],
    accounts: &[(&str, Option<Account>)],
    clouds: &dyn Fn(ProviderKind) -> Cloud,
) {
    let mut places: BTreeMap<(&AccountName, &Region), Vec<&Placed>> = BTreeMap::new();
    for (_, placed) in fleets {
        places.entry((&placed.fleet.account, &placed.fleet.region)).or_default().push(placed);
    }
    for ((account, region), placed) in places {
        let Some(provider) = find(accounts, account.as_str()).map(|account| account.provider) else { continue };
        let needed = KEY_PAIRS_A_FLEET * placed.len();
        if let (Some(max), Some(last)) = (clouds(provider).key_pairs_max, placed.last())
            && needed > max
        {
            report.note(
                &last.at,
                format!(
                    "is one of {} fleets of account {account} in {region}, which take up to {needed} key pairs while all \
                     of them are rotated ({KEY_PAIRS_A_FLEET} each); {provider} allows {max} there unless the quota was \
                     raised",
                    placed.len()
                ),
            );
        }
    }
}

/// Whether one selection surely contains the other.
fn overlaps(a: &Select, b: &Select) -> bool {
    let within = |few: &BTreeMap<String, String>, many: &BTreeMap<String, String>| {
        few.iter().all(|(key, value)| many.get(key) == Some(value))
    };
    match (a, b) {
        (Select::Tags(a), Select::Tags(b)) => within(a, b) || within(b, a),
        _ => true,
    }
}

fn parse_region(text: &str) -> Result<Region, String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (2..=40).contains(&text.len()) && text.chars().all(legal) {
        Ok(Region::new(text))
    } else {
        Err(format!("{text:?} is no region: write it as the cloud spells it (ap-singapore, cn-hangzhou, bj)"))
    }
}

fn parse_bits(text: &str) -> Result<u16, String> {
    match text {
        "2048" => Ok(2048),
        "3072" => Ok(3072),
        "4096" => Ok(4096),
        _ => Err(format!("{text:?} is no key size that all four clouds take: 2048, 3072 or 4096 (RSA)")),
    }
}

fn parse_amount(text: &str) -> Result<Amount, String> {
    let share = text.strip_suffix('%').and_then(|share| share.trim().parse::<u64>().ok());
    if share.is_some_and(|share| share > 100) {
        return Err(format!("{text:?} is more than all of them (100%)"));
    }
    text.parse()
}

fn nonzero(amount: Amount, why: &str) -> Result<Amount, String> {
    match amount {
        Amount::Count(0) | Amount::Percent(0) => Err(why.to_string()),
        amount => Ok(amount),
    }
}

/// A duration of at most a year: more is a mistake, and centuries would run past what a timestamp holds.
pub(super) fn bounded_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration > Duration::from_secs(366 * 24 * 3600) {
        return Err(format!("{text:?} is longer than a year"));
    }
    Ok(duration)
}
