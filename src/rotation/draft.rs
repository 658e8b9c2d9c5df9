//! From a listing to the instances of a plan: who takes part, in which batch, and who does not and why. Pure; what it
//! decides is frozen when the journal begins.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::FleetName;
use crate::model::{Instance, InstanceId, Limits, Power};

use super::plan::{Part, PlannedInstance};
use super::policy::Rollout;

/// The instances of a plan and the policy's numbers, percentages counted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// All instances of the selection that exist, those in batches first, batch by batch.
    pub instances: Vec<PlannedInstance>,
    /// Down at once because of us; at least 1.
    pub unavailable_max: u32,
    /// Failures before a hold.
    pub failures_max: u32,
    /// The first so many batches are each larger than all before, counted in running machines; the canary always.
    pub growing: u32,
}

/// Drafts a plan. `claimed` tells whether another fleet matches an instance too; `reachable` who was found to answer a
/// login, and comes first.
///
/// Percentages are of the running instances that take part, rounded down. The canary is drawn from running machines; if
/// none runs, from the stopped ones. Each batch is `growth` times as large as the one before, up to the largest. No batch
/// holds more than the cloud takes, nor more running machines than `unavailable_max`. Each takes of every zone its share, so
/// that no zone is hit harder than another.
pub fn draft(
    listing: &[Instance],
    rollout: &Rollout,
    limits: &Limits,
    claimed: &dyn Fn(&Instance) -> Option<FleetName>,
    reachable: &BTreeSet<InstanceId>,
) -> Draft {
    let mut listing: Vec<&Instance> = listing.iter().filter(|seen| seen.power != Power::Gone).collect();
    listing.sort_by(|a, b| a.id.cmp(&b.id));
    let mut excluded = Vec::new();
    let (mut running, mut resting) = (Vec::new(), Vec::new());
    for seen in listing {
        match reason_to_exclude(seen, claimed) {
            Some(reason) => excluded.push(planned(seen, Part::Excluded(reason))),
            // Whatever is on its way is counted as running: it may be by the time its batch comes.
            None if seen.power == Power::Stopped => resting.push(seen),
            None => running.push(seen),
        }
    }
    let unavailable_max = rollout.unavailable_max.of(running.len()).max(1);
    let failures_max = rollout.failures_max.of(running.len());
    let bind_max = u32::try_from(limits.bind_max.min(limits.power_max)).unwrap_or(u32::MAX);
    let batch_max = rollout.batch_max.map_or(bind_max, |max| max.min(bind_max)).max(1);
    let canary = rollout.canary.of(running.len()).clamp(1, batch_max);

    let mut instances = Vec::new();
    let mut running: Vec<&Instance> = spread(running).collect();
    // Who does not answer before the bind is no evidence after it: the canary is drawn from those that do.
    running.sort_by_key(|seen| !reachable.contains(&seen.id));
    let (mut running, mut resting) = (running.into_iter().peekable(), spread(resting).peekable());
    let (mut size, mut most, mut growing) = (canary as usize, 0, 0);
    for batch in 0u32.. {
        let mut taken: Vec<&Instance> = running.by_ref().take(size.min(unavailable_max as usize)).collect();
        // A canary of stopped machines proves nothing: they fill it only when no machine runs.
        if taken.len() > most && growing == batch {
            (most, growing) = (taken.len(), batch + 1);
        }
        if batch > 0 || taken.is_empty() {
            let left = size - taken.len();
            taken.extend(resting.by_ref().take(left));
        }
        if taken.is_empty() {
            break;
        }
        instances.extend(taken.into_iter().map(|seen| planned(seen, Part::Batch(batch))));
        if running.peek().is_none() && resting.peek().is_none() {
            break;
        }
        size = size.saturating_mul(rollout.growth.max(1) as usize).min(batch_max as usize);
    }
    instances.extend(excluded);
    Draft { instances, unavailable_max, failures_max, growing: growing.max(1) }
}

/// The same instances in an order in which every stretch holds of each zone as nearly as can be its share of all: the
/// k-th of n in a zone stands at (2k + 1) / 2n of the way. Within a zone they stay in order.
fn spread(instances: Vec<&Instance>) -> impl Iterator<Item = &Instance> {
    let mut zones: BTreeMap<Option<&str>, Vec<&Instance>> = BTreeMap::new();
    for seen in instances {
        zones.entry(seen.zone.as_deref()).or_default().push(seen);
    }
    let mut placed: Vec<(u64, u64, usize, &Instance)> = Vec::new();
    for (number, of_zone) in zones.into_values().enumerate() {
        let count = of_zone.len() as u64;
        placed.extend(of_zone.into_iter().zip(0..).map(|(seen, k)| (2 * k + 1, count, number, seen)));
    }
    placed.sort_by(|(a, of_a, zone_a, _), (b, of_b, zone_b, _)| (a * of_b, zone_a).cmp(&(b * of_a, zone_b)));
    placed.into_iter().map(|(_, _, _, seen)| seen)
}

fn reason_to_exclude(seen: &Instance, claimed: &dyn Fn(&Instance) -> Option<FleetName>) -> Option<String> {
    if let Some(reason) = &seen.unfit {
        return Some(reason.clone());
    }
    if seen.power == Power::Other {
        return Some(format!("state {}", seen.state));
    }
    claimed(seen).map(|fleet| format!("matched by fleet {fleet} too"))
}

fn planned(seen: &Instance, part: Part) -> PlannedInstance {
    PlannedInstance {
        id: seen.id.clone(),
        name: seen.name.clone(),
        power: seen.power,
        keys: seen.keys.clone(),
        part,
        pin: None,
        known: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Disruption;
    use crate::model::{Amount, Duration, ProviderKind};

    fn limits(bind_max: usize) -> Limits {
        Limits {
            provider: ProviderKind::AlibabaEcs,
            bind_max,
            power_max: 100,
            page_max: 100,
            delete_max: 1,
            key_name_max: 25,
            key_bits: &[2048],
            disruption: Disruption::NeedsReboot,
            whole_batch_fails: false,
            key_pairs_max: None,
            requests_per_second: &[],
            downtime: Duration::from_secs(60),
        }
    }

    fn rollout(canary: &str, batch_max: Option<u32>, unavailable_max: &str) -> Rollout {
        let amount = |text: &str| text.parse::<Amount>().unwrap();
        Rollout {
            canary: amount(canary),
            batch_max,
            unavailable_max: amount(unavailable_max),
            failures_max: amount("5%"),
            growth: 100,
            failures_in_a_row: 3,
            soak: Duration::ZERO,
        }
    }

    /// `r` runs, `s` is stopped, `w` is Windows, `o` is in another state, `g` is gone, `c` is on its way, `x` is claimed,
    /// `a` runs and answers.
    fn listing(letters: &str) -> Vec<Instance> {
        letters
            .chars()
            .enumerate()
            .map(|(index, letter)| Instance {
                id: format!("i-{index:04}").as_str().into(),
                name: letter.to_string(),
                power: match letter {
                    's' => Power::Stopped,
                    'o' => Power::Other,
                    'g' => Power::Gone,
                    'c' => Power::Changing,
                    _ => Power::Running,
                },
                state: "RESCUE_MODE".into(),
                keys: Vec::new(),
                boot: None,
                operation: None,
                unfit: (letter == 'w').then(|| "Windows".to_string()),
                hazards: Default::default(),
                tags: Default::default(),
                zone: None,
                image: None,
                private_address: None,
                public_address: None,
            })
            .collect()
    }

    fn check(letters: &str, rollout: &Rollout, bind_max: usize, expect: &str) {
        let claimed = |seen: &Instance| (seen.name == "x").then(|| FleetName::new("db"));
        let listing = listing(letters);
        let answers = listing.iter().filter(|seen| seen.name == "a").map(|seen| seen.id.clone()).collect();
        let draft = draft(&listing, rollout, &limits(bind_max), &claimed, &answers);
        let mut batches: Vec<String> = Vec::new();
        let mut out = Vec::new();
        for instance in &draft.instances {
            match &instance.part {
                Part::Batch(batch) => {
                    batches.resize((*batch as usize + 1).max(batches.len()), String::new());
                    batches[*batch as usize].push_str(&instance.name);
                }
                Part::Excluded(reason) => out.push(reason.as_str()),
            }
        }
        let shown = format!("{} | {} | {}", batches.join(" "), out.join(", "), draft.unavailable_max);
        assert_eq!(shown, expect, "{letters}");
    }

    #[test]
    fn batches_keep_to_the_canary_the_budget_and_the_cloud() {
        check("rrrrrrrrrr", &rollout("1", None, "100%"), 4, "r rrrr rrrr r |  | 10");
        check("rrrrrrrrrr", &rollout("1", None, "30%"), 50, "r rrr rrr rrr |  | 3");
        check("rrrrr", &rollout("3", None, "2"), 50, "rr rr r |  | 2");
        check("rrrr", &rollout("50%", Some(1), "100%"), 50, "r r r r |  | 4");
        check("rrr", &rollout("1", None, "1%"), 50, "r r r |  | 1");
    }

    #[test]
    fn stopped_machines_fill_batches_but_never_a_canary_with_running_ones_at_hand() {
        check("srsr", &rollout("2", None, "100%"), 50, "rr ss |  | 2");
        check("rsss", &rollout("2", None, "1"), 2, "r ss s |  | 1");
        check("sss", &rollout("1", None, "1"), 50, "s ss |  | 1");
        check("sss", &rollout("100%", None, "1"), 50, "s ss |  | 1");
        check("rrss", &rollout("50%", None, "100%"), 50, "r rss |  | 2");
        check("rrsss", &rollout("1", None, "1"), 3, "r rss s |  | 1");
    }

    #[test]
    fn the_canary_is_drawn_from_those_that_answer() {
        check("rrar", &rollout("1", None, "100%"), 50, "a rrr |  | 4");
        check("rarara", &rollout("2", None, "100%"), 2, "aa ar rr |  | 6");
        check("rra", &rollout("2", None, "100%"), 50, "ar r |  | 3");
        check("swa", &rollout("1", None, "100%"), 50, "a s | Windows | 1");
    }

    #[test]
    fn what_cannot_take_a_key_is_excluded_with_the_reason_and_what_is_gone_is_not_there() {
        check(
            "rwgxoc",
            &rollout("1", None, "100%"),
            50,
            "r c | Windows, matched by fleet db too, state RESCUE_MODE | 2",
        );
        check("ww", &rollout("1", None, "100%"), 50, " | Windows, Windows | 1");
        check("", &rollout("1", None, "100%"), 50, " |  | 1");
    }

    #[test]
    fn batches_grow_from_the_canary_by_the_factor_to_the_largest() {
        let check = |count: usize, growth: u32, canary: &str, max: u32, unavailable: &str, expect: &str| {
            let rollout = Rollout { growth, ..rollout(canary, Some(max), unavailable) };
            let draft = draft(&listing(&"r".repeat(count)), &rollout, &limits(100), &|_| None, &BTreeSet::new());
            let mut sizes: Vec<usize> = Vec::new();
            for instance in &draft.instances {
                let Part::Batch(batch) = instance.part else { panic!("{instance:?}") };
                sizes.resize((batch as usize + 1).max(sizes.len()), 0);
                sizes[batch as usize] += 1;
            }
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            assert_eq!(format!("{} | {}", sizes.join(" "), draft.growing), expect);
        };
        check(100, 4, "1", 30, "100%", "1 4 16 30 30 19 | 4");
        check(100, 2, "5%", 20, "100%", "5 10 20 20 20 20 5 | 3");
        check(10, 1, "2", 100, "100%", "2 2 2 2 2 | 1");
        check(12, 4, "1", 100, "3", "1 3 3 3 2 | 2");
        check(4, 100, "1", 100, "100%", "1 3 | 2");
        check(3, 4, "3", 3, "100%", "3 | 1");
        check(6, 100, "1", 2, "100%", "1 2 2 1 | 2");
    }

    #[test]
    fn every_batch_takes_of_each_zone_its_share() {
        let check = |zones: &str, expect: &str| {
            let mut listing = listing(&"r".repeat(zones.len()));
            for (seen, zone) in listing.iter_mut().zip(zones.chars()) {
                seen.zone = (zone != '-').then(|| zone.to_string());
                seen.name = zone.to_string();
            }
            let rollout = Rollout { growth: 4, ..rollout("1", Some(4), "100%") };
            let draft = draft(&listing, &rollout, &limits(100), &|_| None, &BTreeSet::new());
            let mut batches: Vec<String> = Vec::new();
            for instance in &draft.instances {
                let Part::Batch(batch) = instance.part else { panic!("{instance:?}") };
                batches.resize((batch as usize + 1).max(batches.len()), String::new());
                batches[batch as usize].push_str(&instance.name);
            }
            assert_eq!(batches.join(" "), expect);
        };
        check("aaabbbccc", "a bcab cabc");
        check("aaaaaaaaabb", "a abaa aaab aa");
        check("abab----", "- ab-- ab-");
        check("", "");
    }
}
