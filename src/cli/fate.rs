//! What became of one instance in one rotation, in words. Pure; it must say no more than the journal does.

use std::fmt;

use crate::model::Timestamp;
use crate::rotation::{Part, Phase, PlannedInstance, Rotation};

use super::output::moment;
use super::story::batch_name;

/// What became of an instance.
pub(super) struct Fate {
    /// Its name when the plan was made.
    pub(super) name: String,
    /// `None`: the plan left it out.
    pub(super) batch: Option<u32>,
    /// How far it came; `None`: the plan left it out.
    pub(super) phase: Option<Phase>,
    /// When it came there, where the journal says so.
    pub(super) since: Option<Timestamp>,
    /// Whether more may come of it.
    open: bool,
    why: Option<String>,
}

impl Fate {
    /// Of an instance of the plan; `None`: the journal does not know it.
    pub(super) fn of(rotation: &Rotation, planned: &PlannedInstance) -> Option<Self> {
        let (name, open) = (planned.name.clone(), rotation.ended.is_none());
        if let Part::Excluded(reason) = &planned.part {
            let why = Some(reason.to_string());
            return Some(Self { name, batch: None, phase: None, since: None, open, why });
        }
        let member = rotation.member(&planned.id)?;
        let phase = member.phase();
        let since = match phase {
            Phase::Proven => member.proven_at,
            Phase::Active => member.active_at,
            Phase::Excluded => member.excluded.as_ref().map(|(at, _)| *at),
            Phase::Bound | Phase::Straggler => member.bound.as_ref().map(|(at, _)| *at),
            Phase::UnderWay => member.pending.as_ref().map(|pending| pending.since),
            Phase::Waiting | Phase::Gone => None,
        };
        let since = since.filter(|at| *at > Timestamp::MIN);
        let why = member.excluded.as_ref().map(|(_, reason)| reason.to_string());
        Some(Self { name, batch: Some(member.batch), phase: Some(phase), since, open, why })
    }

    /// Whether it has the rotation's key, as far as the rotation is to see to that.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.phase, Some(Phase::Proven | Phase::Active))
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(batch) = self.batch {
            write!(f, "{}: ", batch_name(batch))?;
        }
        f.write_str(match self.phase {
            None => "left out by the plan",
            Some(Phase::Waiting) if self.open => "waiting for its turn",
            Some(Phase::Waiting) => "never touched",
            Some(Phase::UnderWay) => "under way",
            Some(Phase::Bound) => "bound, not active yet",
            Some(Phase::Active) => "active",
            Some(Phase::Proven) => "proven by a login",
            Some(Phase::Straggler) => "off or out of reach, not seen to take the key; bound",
            Some(Phase::Excluded) => "excluded",
            Some(Phase::Gone) => "gone from the cloud",
        })?;
        if let Some(since) = self.since {
            write!(f, " {}", moment(since))?;
        }
        self.why.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}
