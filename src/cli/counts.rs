//! Instances of a rotation by how far they are, as `status`, `history` and `plan` show them. Pure; it must never count what
//! the brain does not tell apart.

use serde::Serialize;

use crate::rotation::{Member, Part, Phase, PlannedInstance, Rotation};

/// Instances by how far they are.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) planned: usize,
    pub(super) waiting: usize,
    pub(super) under_way: usize,
    pub(super) bound: usize,
    pub(super) proven: usize,
    pub(super) active: usize,
    pub(super) stragglers: usize,
    pub(super) excluded: usize,
    pub(super) excluded_in_plan: usize,
    pub(super) gone: usize,
}

impl Counts {
    /// How far each is, and how many the plan left out.
    pub(super) fn of(rotation: &Rotation, planned: &[PlannedInstance]) -> Self {
        let mut counts = Self {
            planned: rotation.members().count(),
            excluded_in_plan: planned.iter().filter(|one| matches!(one.part, Part::Excluded(_))).count(),
            ..Self::default()
        };
        for (_, member) in rotation.members() {
            *counts.of_member(member) += 1;
        }
        counts
    }

    fn of_member(&mut self, member: &Member) -> &mut usize {
        match member.phase() {
            Phase::Waiting => &mut self.waiting,
            Phase::UnderWay => &mut self.under_way,
            Phase::Bound => &mut self.bound,
            Phase::Active => &mut self.active,
            Phase::Proven => &mut self.proven,
            Phase::Straggler => &mut self.stragglers,
            Phase::Excluded => &mut self.excluded,
            Phase::Gone => &mut self.gone,
        }
    }

    /// In words; what is none is left out.
    pub(super) fn text(&self) -> String {
        let all = [
            (self.proven, "proven by a login"),
            (self.active, "active"),
            (self.bound, "bound and not active yet"),
            (self.under_way, "under way"),
            (self.waiting, "waiting"),
            (self.stragglers, "bound (off, or out of reach)"),
            (self.excluded, "excluded"),
            (self.gone, "gone"),
            (self.excluded_in_plan, "left out by the plan"),
        ];
        let some: Vec<String> =
            all.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        some.join(", ")
    }
}
