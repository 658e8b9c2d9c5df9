//! Rules that refuse a rotation before it begins, unless a person forces them by name: a selection that changed too much, a
//! moment outside all windows. It looks at journals and the plan only; it must never begin anything.

use crate::model::{JournalId, Timestamp};
use crate::rotation::rule::{SIZE_CHANGE_MAX, size_changed};
use crate::rotation::{Outcome, Part, Plan, PlannedInstance, Purpose, RotatePlan, Rule, Windows};
use crate::store::Head;

use super::Tools;
use super::planner::{Fleet, PlanError, Proposal};

/// Refuses a proposal that breaks a rule which is not forced. A window that is forced is left out of the plan: the whole
/// rotation goes on without it.
pub async fn check(tools: &Tools, proposal: &mut Proposal, force: &[Rule]) -> Result<(), PlanError> {
    let flag = flag(&proposal.plan);
    let refused = |rule, problem| Err(PlanError::Rule { fleet: proposal.plan.fleet.clone(), rule, flag, problem });
    if !force.contains(&Rule::Window)
        && let Some(problem) = outside(proposal, tools.clock.now())
    {
        return refused(Rule::Window, problem);
    }
    if !force.contains(&Rule::SizeChange) {
        let heads = tools.journal.heads().await?;
        if let Some(last) = last_completed(heads.of(&proposal.plan.fleet)) {
            let before = tools.journal.instances(last).await?;
            if let Some(problem) = grown(&before, &proposal.instances, last) {
                return refused(Rule::SizeChange, problem);
            }
        }
    }
    if force.contains(&Rule::Window) {
        proposal.plan.policy.pace.windows = Windows::default();
    }
    Ok(())
}

/// The flag with which a rotation of this kind was asked for, with a blank before it; empty for an ordinary one.
pub fn flag(plan: &RotatePlan) -> &'static str {
    if plan.compromised { " --compromised" } else { "" }
}

/// Whether so many machines that came later are more than the size rule lets through: then nobody binds them unasked (a tag
/// put on the wrong machines looks like that).
pub async fn too_many_new(tools: &Tools, fleet: &Fleet, new: usize) -> Result<bool, PlanError> {
    let heads = tools.journal.heads().await?;
    let Some(last) = last_completed(heads.of(&fleet.name)) else { return Ok(false) };
    let before = tools.journal.instances(last).await?;
    let before = before.iter().filter(|one| matches!(one.part, Part::Batch(_))).count();
    let too_many = size_changed(before, before + new);
    if too_many {
        tracing::warn!(
            fleet = %fleet.name,
            "{new} new instances beside {before}, more than {SIZE_CHANGE_MAX} %: not caught up unasked; `rekeyd catch-up {}` \
             binds them",
            fleet.name
        );
    }
    Ok(too_many)
}

/// Why no batch of this plan may begin now, and when one may.
pub fn outside(proposal: &Proposal, now: Timestamp) -> Option<String> {
    let pace = &proposal.plan.policy.pace;
    if pace.fits(now) {
        return None;
    }
    let next = pace.windows.next(now, pace.takes());
    let next = next.map_or("none comes within two years".to_string(), |at| format!("the next one begins {at:.0}"));
    Some(format!("no maintenance window is open that a batch would end in; {next}"))
}

/// The newest completed rotation of the whole fleet among the heads of its journals, oldest first. A rollback or a catch-up
/// is of a part by its nature: what it selected is no measure for the next rotation.
pub fn last_completed<'a>(heads: impl DoubleEndedIterator<Item = &'a Head>) -> Option<JournalId> {
    let whole = |head: &&Head| matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate);
    let completed = |head: &&Head| matches!(head.ended, Some((_, Outcome::Completed)));
    heads.rev().find(|head| whole(head) && completed(head)).map(|head| head.id)
}

/// Why a selection differs too much from the one of an earlier rotation.
pub fn grown(before: &[PlannedInstance], now: &[PlannedInstance], last: JournalId) -> Option<String> {
    let taking_part = |all: &[PlannedInstance]| all.iter().filter(|one| matches!(one.part, Part::Batch(_))).count();
    let (before, now) = (taking_part(before), taking_part(now));
    let word = if now > before { "grew" } else { "shrank" };
    size_changed(before, now).then(|| {
        format!(
            "its selection {word} from {before} to {now} instances since rotation {last}, which is more than \
             {SIZE_CHANGE_MAX} %"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measure_is_the_last_completed_rotation_of_the_whole_fleet() {
        let id = |number: u8| JournalId::derive(Timestamp::UNIX_EPOCH, [number; 10]);
        let head = |number: u8, more: &str, outcome: Outcome| {
            let plan = format!(
                r#"{{"kind":"rotate","fleet":"web","place":{{"account":"lh","provider":"tencent-lighthouse","endpoint":null,
                "region":"r"}},"select":{{"tags":{{}}}},"key_name":"rkm_1","key_bits":2048,"disruption":"stops_instance",
                "policy":{{"unavailable_max":1,"failures_max":0,"soak":{{"secs":0,"nanos":0}},"force_stop":false,
                "grace":{{"secs":0,"nanos":0}}}}{more}}}"#
            );
            let (plan, begun) = (serde_json::from_str(&plan).unwrap(), Timestamp::UNIX_EPOCH);
            Head { id: id(number), plan, begun, ended: Some((begun, outcome)), seq: 2 }
        };
        let back = format!(r#","undoes":"{}""#, id(2));
        let whole = head(1, "", Outcome::Completed);
        let given_up = head(2, "", Outcome::Abandoned);
        let way_back = head(3, &back, Outcome::Completed);
        assert_eq!(last_completed([&whole, &given_up, &way_back].into_iter()), Some(id(1)));
        assert_eq!(last_completed([&given_up, &way_back].into_iter()), None);
        assert_eq!(last_completed([&whole, &head(4, "", Outcome::Completed)].into_iter()), Some(id(4)));
    }
}
