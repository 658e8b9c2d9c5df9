//! The way on from a hold: what to look at, and the command that goes on. In words for people; it must never be written into
//! a journal, so that it may be bettered.

use crate::model::JournalId;

use super::event::Step;
use super::reason::HoldReason;

impl HoldReason {
    /// What a person can do about it, with the command that goes on.
    pub fn way_on(&self, journal: JournalId) -> String {
        let release = format!("`rekeyd release {journal}`");
        match self {
            Self::Operator { .. } => format!("{release} goes on"),
            Self::Failures { .. } => {
                format!("`rekeyd show {journal}` names who failed and why; {release} allows as many failures again")
            }
            Self::FailuresInARow { .. } => {
                format!("`rekeyd show {journal}` names who failed and why; {release} goes on, and counts anew")
            }
            Self::Canary => format!(
                "`rekeyd show {journal}` tells why; `rekeyd rollback {journal}` takes the canary back to what it had, {release} \
                 goes on without a proven canary, `rekeyd abandon {journal}` gives it up"
            ),
            Self::Hook { .. } => {
                format!("`rekeyd show {journal} --json` has what it printed; {release} runs it again")
            }
            Self::Step { step: Step::Deliver, .. } => format!(
                "put right what the error says; {release} tries again, `rekeyd release {journal} --allow=undelivered` ends \
                 the rotation without it: the key is in custody"
            ),
            Self::Step { .. } if self.is_strange() => format!(
                "see whose credentials are in force (`rekeyd check --online`); {release} looks again; if the machines and the \
                 pair are gone indeed, `rekeyd release {journal} --allow=gone` says so, and `rekeyd abandon {journal}` gives \
                 the rotation up"
            ),
            Self::Step { .. } => format!("put right what the error says; {release} tries again"),
            Self::KeyMismatch => format!(
                "nobody but rekeyd should import pairs of this name: find out who did; {release} looks again, `rekeyd \
                 abandon {journal}` gives this key up"
            ),
            Self::UnknownPairs { .. } => format!(
                "stop the other rekeyd, restore the newer database, or delete the pairs that nobody hangs on; {release} \
                 looks again"
            ),
            Self::Custody { .. } => {
                format!(
                    "put the private key back from a copy or a backup, and see that every copy can be read; {release} looks again"
                )
            }
            Self::StartRefused { instances } => {
                let one = instances.first().map_or("INSTANCE", |id| id.as_str());
                format!(
                    "{release} tries again; where the cloud refuses for good (expired, no stock, arrears), `rekeyd release \
                     {journal} --allow=leave-off:{one}` writes the start off"
                )
            }
            Self::Clock { .. } => format!("set this machine's clock (NTP); {release} looks again"),
            Self::WrongHost { instance, .. } => {
                format!("see that it is the right machine; `rekeyd trust {instance}` takes its host key and goes on")
            }
            Self::OldKeyTaken { .. } => {
                format!("take the old key out of their authorized_keys; {release} goes on")
            }
            Self::StrangersPair { .. } => {
                format!(
                    "put the pair back, or leave those machines as they are: `rekeyd abandon {journal}` gives the way back up"
                )
            }
            Self::Account { .. } => {
                format!("put the account back into the config file, and restart; {release} goes on")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::model::error::{Blame, Effect, Error, Kind};
    use crate::rotation::Hook;
    use crate::rotation::STRANGE;

    #[test]
    fn every_way_on_names_a_command_with_the_journal() {
        let id = JournalId::derive(Timestamp::UNIX_EPOCH, [1; 10]);
        let reasons = [
            HoldReason::Operator { note: String::new() },
            HoldReason::Failures { failed: 3, allowed: 2 },
            HoldReason::FailuresInARow { failed: 3, limit: 3 },
            HoldReason::Canary,
            HoldReason::Hook { hook: Hook::BeforeBatch, batch: 2, problem: "exit code 1".into() },
            HoldReason::KeyMismatch,
            HoldReason::UnknownPairs { names: vec!["rk_x".into()] },
            HoldReason::Custody { problem: "gone".into() },
            HoldReason::StartRefused { instances: vec!["i-1".into()] },
            HoldReason::Clock { difference: 70 },
            HoldReason::OldKeyTaken { instances: vec!["i-1".into()] },
            HoldReason::Account { problem: "gone".into() },
        ];
        for reason in reasons {
            let way = reason.way_on(id);
            assert!(way.contains(&format!("`rekeyd release {id}")), "{way}");
        }
        let refused = HoldReason::StartRefused { instances: vec!["i-1".into()] };
        assert!(refused.way_on(id).contains("--allow=leave-off:i-1"));
        let error = Error {
            kind: Kind::Unavailable,
            effect: Effect::NotDone,
            blame: Blame::Account,
            action: "look".into(),
            code: STRANGE.into(),
            message: String::new(),
            request_id: None,
            retry_after: None,
        };
        let strange = HoldReason::Step { step: Step::Settle(0), error };
        assert!(strange.way_on(id).contains(&format!("`rekeyd release {id} --allow=gone`")));
    }
}
