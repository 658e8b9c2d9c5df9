//! A rotation that is to begin: of which fleet, why, and how it is begun. It must never begin one that was not handed out.

use crate::engine::late::{Late, late, propose_catch_up};
use crate::engine::planner::{self, Aim, Fleet, PlanError, may_disturb, propose_for};
use crate::engine::{Tools, rules};
use crate::model::{Duration, RequestId, Timestamp};
use crate::rotation::policy::{back_off, later};
use crate::rotation::{Purpose, Rule};
use crate::store::Head;

use super::due::Schedule;

/// A fleet of the config file.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// As the planner takes it.
    pub fleet: Fleet,
    /// When it is due; `None`: by hand only.
    pub schedule: Option<Schedule>,
    /// Whether new machines are bound to its key without being asked; else they are only told of.
    pub binds_new: bool,
}

/// A rotation that is to begin now.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its fleet.
    pub fleet: Fleet,
    /// What for.
    pub aim: Aim,
    /// Why.
    pub cause: Cause,
    /// In spite of these rules.
    pub force: Vec<Rule>,
}

/// What a closed window makes of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// One opens in time: the tick waits for it.
    Waits,
    /// None opens before the slack is over.
    Skip,
}

impl Scheduled {
    /// Whether a tick that has come waits for a maintenance window.
    pub(super) fn waits_for_window(&self, due: Option<Timestamp>, now: Timestamp) -> bool {
        let (Some(schedule), Some(due)) = (&self.schedule, due.filter(|due| *due <= now)) else { return false };
        self.closed(schedule, due, now) == Some(Closed::Waits)
    }

    /// What the fleet's windows make of its tick of `due`; `None`: it may begin now.
    pub(super) fn closed(&self, schedule: &Schedule, due: Timestamp, now: Timestamp) -> Option<Closed> {
        if planner::may_disturb(&self.fleet, now) {
            return None;
        }
        let opens = self.fleet.windows.next(now, self.fleet.pace(1).takes());
        Some(match opens.is_some_and(|opens| opens <= later(due, schedule.slack)) {
            true => Closed::Waits,
            false => Closed::Skip,
        })
    }
}

/// Why a rotation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is due by its schedule.
    Due {
        /// Since when.
        due: Timestamp,
        /// How late it was seen to be so.
        late: Duration,
    },
    /// A person asked.
    Asked(RequestId),
    /// A way back to several pairs is gone on with.
    GoOn,
    /// It is time to see who is late in the fleet.
    Survey,
}

/// What came of a start.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The rotation; `None`: there was nobody to begin one for.
    pub head: Option<Head>,
    /// Who is late in the fleet, where that was looked for.
    pub late: Option<Late>,
}

/// Begins the rotation of a start: looks at its fleet, makes the plan, opens the journal. Several may run at once.
pub async fn begin(tools: &Tools, start: &Start, others: &[Fleet]) -> Result<Begun, PlanError> {
    let Start { fleet, aim, cause, force } = start;
    let (proposal, late) = match (aim, cause) {
        (Aim::CatchUp { new }, Cause::Survey) => {
            let late = late(tools, fleet, others).await?;
            let new = *new
                && may_disturb(fleet, tools.clock.now())
                && !rules::too_many_new(tools, fleet, late.new.len()).await?;
            (propose_catch_up(tools, fleet, others, &late, new).await, Some(late))
        }
        _ => (propose_for(tools, fleet, others, *aim).await, None),
    };
    let head = match (proposal, cause) {
        (Ok(mut proposal), _) => {
            if proposal.plan.purpose() == Purpose::Rotate {
                rules::check(tools, &mut proposal, force).await?;
            }
            Some(planner::begin(tools, &proposal).await?)
        }
        (Err(PlanError::Nobody { .. }), Cause::Survey) => None,
        (Err(PlanError::Nobody { problem, .. }), Cause::GoOn) => {
            tracing::info!(fleet = %fleet.name, "the way back is at its end: {problem}");
            None
        }
        (Err(error), _) => return Err(error),
    };
    Ok(Begun { head, late })
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// When a start is tried again that has failed so often before.
pub(super) fn again(times: u32, now: Timestamp) -> Timestamp {
    later(now, back_off(times, None, 1.0).max(RETRY_MIN))
}

/// A start that failed is tried again after this at the earliest …
pub(super) const RETRY_MIN: Duration = Duration::from_secs(10);
/// … and this at the latest.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);
