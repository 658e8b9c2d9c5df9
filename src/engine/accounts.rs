//! The cap on machines down at once over all fleets of an account. What is owed is counted from the journals each time, under
//! a lock that is held until the intent is written: exact however many journals are driven at once, and after a restart. The
//! reservation *is* the journal entry; nothing here must be needed to know a debt, and no owed start ever waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

use crate::model::{AccountName, InstanceId, JournalId};
use crate::rotation::{Found, Plan, Rotation};
use crate::store::{Head, StoreError};

use super::case::{Case, Course, fold};
use super::{EngineError, Tools, guard};

/// The caps of the accounts; engines of one process share it.
#[derive(Debug, Default)]
pub struct Accounts {
    caps: Mutex<BTreeMap<AccountName, u32>>,
    gates: Mutex<BTreeMap<AccountName, Arc<Gate<Known>>>>,
}

/// The open rotations of an account as they were read last: it spares reading them from the beginning.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<JournalId, Rotation>);

/// Leave to disturb, until it is dropped: nobody else of the account is let through meanwhile.
#[derive(Debug, Default)]
pub(super) struct Reservation {
    /// Those who may be disturbed now.
    pub(super) found: Vec<Found>,
    _gate: Option<OwnedMutexGuard<Known>>,
}

impl Reservation {
    /// Leave for who disturbs nobody: an owed start.
    pub(super) fn of(found: Vec<Found>) -> Self {
        Self { found, _gate: None }
    }
}

impl Accounts {
    /// With these caps: so many machines of an account may be down at once because of us.
    pub fn new(caps: BTreeMap<AccountName, u32>) -> Self {
        Self { caps: Mutex::new(caps), gates: Mutex::default() }
    }

    /// These are the caps from now on; what is down already stays counted.
    pub fn set_caps(&self, caps: BTreeMap<AccountName, u32>) {
        *self.caps.lock().unwrap_or_else(PoisonError::into_inner) = caps;
    }

    fn cap(&self, account: &AccountName) -> Option<u32> {
        self.caps.lock().unwrap_or_else(PoisonError::into_inner).get(account).copied()
    }

    fn gate(&self, account: &AccountName) -> Arc<Gate<Known>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).entry(account.clone()).or_default().clone()
    }
}

/// Those of `found` who may be disturbed as far as their account's cap goes; who waits is said in the case.
pub(super) async fn reserve(tools: &Tools, case: &mut Case, found: Vec<Found>) -> Result<Reservation, EngineError> {
    let account = case.plan.place().account.clone();
    let accounts = &tools.surroundings.accounts;
    let Some(cap) = accounts.cap(&account) else { return Ok(Reservation::of(found)) };
    let mut gate = accounts.gate(&account).lock_owned().await;
    let owed = gate.count(tools, case, &account).await?;
    let down: u32 = owed.values().sum();
    let wanted = found.len();
    let rotation = case.rotation()?;
    let is_owed = |id: &InstanceId| rotation.member(id).is_some_and(|member| member.owed.is_some());
    let found = guard::room(found, cap.saturating_sub(down), &is_owed);
    case.waiting = (found.len() < wanted).then(|| full(&account, cap, &owed));
    Ok(Reservation { found, _gate: Some(gate) })
}

/// Why nobody more of an account may be disturbed, and because of whom.
pub fn full(account: &AccountName, cap: u32, owed: &BTreeMap<String, u32>) -> String {
    let down: u32 = owed.values().sum();
    let whose: Vec<String> =
        owed.iter().filter(|(_, owed)| **owed > 0).map(|(fleet, owed)| format!("{fleet} {owed}")).collect();
    let whose = if whose.is_empty() { String::new() } else { format!(" ({})", whose.join(", ")) };
    format!(
        "account {account}: {down} of {cap} machines that may be down at once are down{whose}; accounts.{account}.unavailable_max"
    )
}

impl Known {
    /// How many starts each fleet of the account is owed, by all its open journals.
    async fn count(
        &mut self,
        tools: &Tools,
        case: &Case,
        account: &AccountName,
    ) -> Result<BTreeMap<String, u32>, EngineError> {
        let heads = tools.journal.heads().await?.readable;
        let is_open = |head: &&Head| head.ended.is_none() && head.plan.place().account == *account;
        let open: Vec<&Head> = heads.iter().filter(is_open).collect();
        self.0.retain(|id, _| open.iter().any(|head| head.id == *id));
        let mut owed = BTreeMap::new();
        for head in open {
            let Plan::Rotate(plan) = &head.plan else { continue };
            let of_this = match (head.id == case.id, &case.course) {
                (true, Course::Rotate(rotation)) => rotation.owed(),
                _ => match self.owed(tools, head).await {
                    Ok(owed) => owed,
                    // It cannot be read, and nobody drives it: at the most it owes what its plan allows.
                    Err(EngineError::Illegal { .. } | EngineError::Store(StoreError::Damaged { .. })) => {
                        plan.policy.unavailable_max
                    }
                    Err(error) => return Err(error),
                },
            };
            *owed.entry(plan.fleet.to_string()).or_default() += of_this;
        }
        Ok(owed)
    }

    /// How many starts a rotation owes, by its journal as it is now.
    async fn owed(&mut self, tools: &Tools, head: &Head) -> Result<u32, EngineError> {
        // Taken out meanwhile: what fails half way is read from the beginning the next time.
        let rotation = match self.0.remove(&head.id) {
            Some(mut rotation) => {
                for entry in tools.journal.read(head.id, rotation.seq).await? {
                    let illegal = |source| EngineError::Illegal { journal: head.id, source };
                    rotation.apply(&entry).map_err(illegal)?;
                }
                rotation
            }
            None => match fold(tools.journal.as_ref(), head.id).await? {
                (_, Course::Rotate(rotation)) => *rotation,
                (_, Course::Retire(_)) => return Ok(0),
            },
        };
        let owed = rotation.owed();
        self.0.insert(head.id, rotation);
        Ok(owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_for_whom_and_by_which_rule() {
        let owed = [("db".to_string(), 1), ("idle".to_string(), 0), ("web".to_string(), 2)].into();
        let text = full(&AccountName::new("main"), 3, &owed);
        assert_eq!(
            text,
            "account main: 3 of 3 machines that may be down at once are down (db 1, web 2); accounts.main.unavailable_max"
        );
    }
}
