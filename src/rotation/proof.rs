//! From what a login came to, to what is true of an instance. Pure. A key is refused only where the machine's own server
//! has refused it; unreachable is no evidence against a key, but a machine that was reachable before and is not so now has
//! not come through the rotation.

use crate::model::{Duration, InstanceId, Login, Timestamp};

use super::event::{OldKeyFound, Proof};
use super::policy::{SETTLE_DEADLINE, later};
use super::reason::{Exclusion, HoldReason};
use super::state::Rotation;

/// A machine that answers, and refuses the new key, gets so long: its guest agent may be about to write it down.
pub const REFUSED_DEADLINE: Duration = Duration::from_secs(300);

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
    /// Nobody logs in there before a person has looked at it.
    Hold(HoldReason),
}

impl Rotation {
    /// What the answer to a login with the new key proves of an instance that awaits its proof. `old_key`: what became of
    /// offering it its old key; `None`: that could not be asked.
    pub fn proof_finding(
        &self,
        id: &InstanceId,
        answer: &Login,
        old_key: Option<OldKeyFound>,
        now: Timestamp,
    ) -> ProofFinding {
        let Some(member) = self.member(id).filter(|member| member.awaits_proof()) else { return ProofFinding::Wait };
        let Some((_, key)) = &self.key else { return ProofFinding::Wait };
        let since = member.active_at.unwrap_or(now);
        let failed = |why: String| ProofFinding::Excluded(Exclusion::Unproven { why });
        match answer {
            Login::WrongHost(seen) => match &member.pin {
                Some(pinned) => ProofFinding::Hold(HoldReason::WrongHost {
                    instance: id.clone(),
                    pinned: pinned.clone(),
                    seen: seen.host_key.clone(),
                }),
                None => ProofFinding::Wait,
            },
            Login::Accepted(seen) => match old_key {
                Some(old_key) => ProofFinding::Verified(Proof {
                    instance: id.clone(),
                    key: key.clone(),
                    host_key: seen.host_key.clone(),
                    server: seen.server.clone(),
                    old_key,
                }),
                None if now >= later(since, SETTLE_DEADLINE) => {
                    failed("the new key is accepted, but whether the old one still is cannot be asked".to_string())
                }
                None => ProofFinding::Wait,
            },
            Login::Refused(_) if now >= later(since, REFUSED_DEADLINE) => failed("it refuses the new key".to_string()),
            // A host key of an earlier rotation says nothing of whether it was reachable before this one.
            Login::Unreachable { why } if now >= later(since, SETTLE_DEADLINE) => match member.reached {
                true => failed(why.clone()),
                false => ProofFinding::Unproven { why: why.clone() },
            },
            Login::Refused(_) | Login::Unreachable { .. } => ProofFinding::Wait,
        }
    }
}
