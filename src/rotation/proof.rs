//! From what a login came to, to what is true of an instance. Pure. A key is refused only where the machine's own server
//! has refused it; unreachable is no evidence against a key, but a machine that was reachable before and is not so now has
//! not come through the rotation.

use crate::model::{HostKey, Image, InstanceId, Login, Timestamp};

use super::event::{OldKeyFound, Proof, Step};
use super::plan::Verify;
use super::policy::later;
use super::reason::{Exclusion, HoldReason};
use super::state::Rotation;

/// The code of a failure that lies on this machine: the way to the others cannot be taken, and nobody was asked.
pub const CUT_OFF: &str = "JumpKey";

/// What a login proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofFinding {
    /// Nothing yet: try again.
    Wait,
    /// It accepts the new key.
    Verified(Proof),
    /// It was never reachable, and has not become so in time.
    Unproven {
        /// What the last try came to.
        why: String,
    },
    /// It does not accept the new key, or is out of reach since: a failure.
    Excluded(Exclusion),
    /// It shows another host key than it was known by, and the cloud that its disk was made anew since: its host key is to
    /// be read again.
    Reimaged,
    /// Nobody logs in there before a person has looked at it.
    Hold(HoldReason),
}

impl Rotation {
    /// What the answer to a login with the new key proves of an instance that awaits its proof. `image`: what the look
    /// before the login showed. `old_key`: what became of offering it its old key; `None`: that could not be asked.
    pub fn proof_finding(
        &self,
        id: &InstanceId,
        image: Option<&Image>,
        answer: &Login,
        old_key: Option<OldKeyFound>,
        now: Timestamp,
    ) -> ProofFinding {
        let Some(member) = self.member(id).filter(|member| member.awaits_proof()) else { return ProofFinding::Wait };
        let Some((_, key)) = &self.key else { return ProofFinding::Wait };
        // Time in which nobody drove it does not count.
        let since = member.active_at.unwrap_or(now).max(self.resumed());
        let Verify::Ssh(login) = &self.plan.policy.verify else { return ProofFinding::Wait };
        let is_late = now >= later(since, login.deadline);
        let failed = |why: String| ProofFinding::Excluded(Exclusion::Unproven { why });
        match answer {
            Login::WrongHost(seen) => match self.wrong_host(id, image, &seen.host_key) {
                Some(reason) => ProofFinding::Hold(reason),
                None => ProofFinding::Reimaged,
            },
            Login::Accepted(seen) => match old_key {
                Some(old_key) => ProofFinding::Verified(Proof {
                    instance: id.clone(),
                    key: key.clone(),
                    host_key: seen.host_key.clone(),
                    image: image.cloned(),
                    server: seen.server.clone(),
                    old_key,
                }),
                None if is_late => {
                    failed("the new key is accepted, but whether the old one still is cannot be asked".to_string())
                }
                None => ProofFinding::Wait,
            },
            Login::Refused(_) if is_late => failed("it refuses the new key".to_string()),
            // A host key of an earlier rotation says nothing of whether it was reachable before this one.
            Login::Unreachable { why } if is_late => match member.reached {
                true => failed(why.clone()),
                false => ProofFinding::Unproven { why: why.clone() },
            },
            Login::Refused(_) | Login::Unreachable { .. } => ProofFinding::Wait,
        }
    }

    /// Since when no login could be tried in this step for a fault of our own, unless somebody has resumed since.
    pub fn cut_off_since(&self, step: Step) -> Option<Timestamp> {
        let retry = self.retry(step).filter(|retry| retry.error.code == CUT_OFF)?;
        (retry.last > self.resumed()).then_some(retry.since)
    }

    /// Why nobody logs in to a machine that shows this host key: it is known by another one, and its disk is the same as
    /// far as the cloud shows (`image`). `None`: its host key is to be read anew.
    pub fn wrong_host(&self, id: &InstanceId, image: Option<&Image>, seen: &HostKey) -> Option<HoldReason> {
        let pin = self.member(id)?.pin.as_ref().filter(|pin| !pin.is_outlived(image))?;
        let (pinned, seen) = (pin.host_key.clone(), seen.clone());
        Some(HoldReason::WrongHost { instance: id.clone(), pinned, seen })
    }
}
