//! How long a key that may be in wrong hands opened what: from a rotation of a compromised key to the times until its hosts
//! were proven to refuse it, and to whoever is not. Pure. It must never count what no login proved.

use crate::model::{Duration, InstanceId, Timestamp};

use super::event::OldKeyFound;
use super::member::{Member, Phase};
use super::plan::{Part, PlannedInstance};
use super::reason::Outcome;
use super::state::Rotation;

/// What a rotation has proven of the keys that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Machines in its batches that the cloud still has: those of which the shares are.
    pub hosts: usize,
    /// So many of them were proven to refuse the old key.
    pub refused: usize,
    /// From its begin until so many in a hundred of the hosts (rounded up) were proven to refuse the old key; `None`: not
    /// yet. In the order of [`SHARES`].
    pub until: [Option<Duration>; 3],
    /// Logged in to with the new key, and they still take the old one.
    pub taken: Vec<InstanceId>,
    /// Logged in to with the new key; no old one is known that they could have been asked about.
    pub no_old_key: Vec<InstanceId>,
    /// No login proved anything of these, and why.
    pub unproven: Vec<(InstanceId, String)>,
    /// In none of its batches: nothing was done to them, and why. They are no hosts.
    pub left_out: Vec<(InstanceId, String)>,
    /// Whether it proves by logins at all.
    pub by_login: bool,
}

/// The shares of the hosts, in a hundred, whose times are told.
pub const SHARES: [usize; 3] = [50, 99, 100];

impl Rotation {
    /// What it has proven of the keys that it replaces. `planned`: all the instances of its plan.
    pub fn exposure(&self, planned: &[PlannedInstance]) -> Exposure {
        let hosts: Vec<(&InstanceId, &Member)> = self.members().filter(|(_, member)| !member.gone).collect();
        let (mut refused_at, mut taken, mut no_old_key, mut unproven) =
            (Vec::<Timestamp>::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, member) in &hosts {
            match (&member.proof, member.proven_at) {
                (Some(proof), Some(at)) => match proof.old_key {
                    OldKeyFound::Refused => refused_at.push(at),
                    OldKeyFound::Taken => taken.push((*id).clone()),
                    OldKeyFound::NotKnown => no_old_key.push((*id).clone()),
                },
                _ => unproven.push(((*id).clone(), self.why_unproven(member))),
            }
        }
        refused_at.sort();
        let until = SHARES.map(|share| {
            let needed = (hosts.len() * share).div_ceil(100);
            let at = needed.checked_sub(1).and_then(|index| refused_at.get(index))?;
            Some(Duration::try_from(at.duration_since(self.begun)).unwrap_or_default())
        });
        let left_out = planned.iter().filter_map(|one| match &one.part {
            Part::Excluded(why) => Some((one.id.clone(), why.clone())),
            Part::Batch(_) => None,
        });
        Exposure {
            hosts: hosts.len(),
            refused: refused_at.len(),
            until,
            taken,
            no_old_key,
            unproven,
            left_out: left_out.collect(),
            by_login: self.plan.can_prove(),
        }
    }

    fn why_unproven(&self, member: &Member) -> String {
        let given_up = matches!(self.ended, Some((_, Outcome::Abandoned)));
        let why = match (&member.excluded, member.phase()) {
            (Some((_, reason)), _) => return format!("excluded: {reason}"),
            (None, _) if member.late => "bound and running, and out of reach of any login",
            (None, Phase::Straggler) => "bound and switched off: it refuses the old key from its next boot on",
            (None, Phase::Active) if !member.must_prove => "bound and running by the cloud's word",
            (None, Phase::Active) => "bound and running, not logged in to yet",
            (None, Phase::Waiting) if given_up => "not touched: the rotation was given up",
            (None, Phase::Waiting) => "not touched yet",
            (None, _) => "under way",
        };
        why.to_string()
    }
}
