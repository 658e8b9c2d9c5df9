//! Driving a fleet from one command: its rotation to the end or to a hold, then its retire journals as far as they go.
//! The daemon's loop is `scheduler`'s.

use crate::model::{FleetName, JournalId, Timestamp};
use crate::rotation::retire::{Pair, due};
use crate::rotation::{HoldReason, KeySource, Outcome, Plan, RetirePlan, Standing, Verify};
use crate::store::{Head, StoreError};

use super::compromised::waive_grace;
use super::planner::{announce, new_id};
use super::{Engine, EngineError, Tools, Turn};

/// How a rotation stands when there is nothing left to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It ended.
    Ended(Outcome),
    /// It is held, and nothing more can be done: nothing is in flight, and nobody is owed a start but these, whom the cloud
    /// refuses to start; or its account has left the config file or shows nothing of it, and what is owed cannot be paid
    /// without it.
    Held {
        /// Why.
        reason: HoldReason,
        /// Who is owed a start and stays without.
        down: Vec<crate::model::InstanceId>,
    },
}

/// How a retire journal stands when there is nothing left to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retiring {
    /// The journal.
    pub id: JournalId,
    /// Its head as of now.
    pub plan: RetirePlan,
    /// How it ended, or `None`.
    pub ended: Option<Outcome>,
    /// Why it is held.
    pub held: Option<HoldReason>,
    /// Who or what it waits for.
    pub waiting: Option<String>,
    /// Until when it waits.
    pub until: Option<Timestamp>,
}

impl Engine {
    /// Drives a rotation until it ends, or is held with nothing more to be done.
    pub async fn drive(&mut self, id: JournalId) -> Result<Reached, EngineError> {
        self.recall(id).await?;
        loop {
            let turn = self.turn(id).await?;
            let now = self.tools.clock.now();
            if let Some(rotation) = self.rotation(id) {
                if let Some((_, outcome)) = rotation.ended {
                    return Ok(Reached::Ended(outcome));
                }
                let cut_off = |reason: &&HoldReason| {
                    let is_gone = matches!(reason, HoldReason::Account { .. });
                    // As the journal has it, and as this process has seen it.
                    let is_strange = rotation.strange(now).is_some();
                    (is_gone && (self.tools.providers)(&rotation.plan.place).is_err())
                        || (is_strange && self.cases.get(&id).is_some_and(|case| case.strange.is_some()))
                };
                let stands = |reason: &&HoldReason| {
                    (rotation.in_flight(now).is_empty() && rotation.hook_due(now).is_none()) || cut_off(reason)
                };
                if let Some(reason) = rotation.held.as_ref().filter(stands) {
                    let owed = rotation.members().filter(|(_, member)| member.owed.is_some());
                    let down = owed.map(|(id, _)| id.clone()).collect();
                    return Ok(Reached::Held { reason: reason.clone(), down });
                }
            }
            self.wait(turn.wake).await?;
        }
    }

    /// A rotation that binds an earlier pair again waits until no retire journal of that pair is open: those end as soon
    /// as they take a turn.
    async fn recall(&mut self, id: JournalId) -> Result<(), EngineError> {
        let head = self.tools.journal.head(id).await?;
        if !matches!(&head.plan, Plan::Rotate(plan) if matches!(plan.key, KeySource::Existing { .. })) {
            return Ok(());
        }
        for other in self.tools.journal.named(head.plan.key_name()).await? {
            if matches!(other.plan, Plan::Retire(_)) && other.ended.is_none() {
                self.turn(other.id).await?;
            }
        }
        Ok(())
    }

    /// Drives the retire journals of a fleet until each has ended, or waits for time, a machine or a person. A wait of
    /// less than `patience` is waited out.
    pub async fn drive_retirements(
        &mut self,
        fleet: &FleetName,
        patience: crate::model::Duration,
    ) -> Result<Vec<Retiring>, EngineError> {
        begin_retirements(&self.tools, fleet, &self.heads().await?.readable).await?;
        let mut reached = Vec::new();
        for head in self.heads().await?.readable {
            let Plan::Retire(plan) = &head.plan else { continue };
            if plan.fleet == *fleet && head.ended.is_none() {
                reached.push(self.drive_retirement(head.id, plan, patience).await?);
            }
        }
        Ok(reached)
    }

    async fn drive_retirement(
        &mut self,
        id: JournalId,
        plan: &RetirePlan,
        patience: crate::model::Duration,
    ) -> Result<Retiring, EngineError> {
        loop {
            let turn: Turn = self.turn(id).await?;
            let now = self.tools.clock.now();
            let super::case::Course::Retire(retirement) = &self.cases[&id].course else {
                return Err(StoreError::Missing(id).into());
            };
            let until = retirement.next(now).wake;
            let far = until.is_some_and(|until| until > crate::rotation::policy::later(now, patience));
            let outcome = retirement.ended.map(|(_, outcome)| outcome);
            if outcome.is_some() || turn.standing == Standing::Held || turn.waiting.is_some() || far {
                return Ok(Retiring {
                    id,
                    plan: plan.clone(),
                    ended: outcome,
                    held: retirement.held.clone(),
                    waiting: turn.waiting,
                    until,
                });
            }
            self.wait(turn.wake).await?;
        }
    }
}

/// Begins the retire journals that are due in a fleet, and has those that are open wait for nothing where a compromised key
/// is replaced, by the heads of its journals, oldest first (others' are passed
/// over), and answers theirs.
pub async fn begin_retirements(tools: &Tools, fleet: &FleetName, heads: &[Head]) -> Result<Vec<Head>, EngineError> {
    let heads: Vec<&Head> = heads.iter().filter(|head| head.plan.fleet() == fleet).collect();
    waive_grace(tools, &heads).await?;
    let pairs = pairs(&heads);
    // Soak and grace are those of the rotation that superseded the pair: the newest one.
    let newest = heads.iter().rev().find_map(|head| match &head.plan {
        Plan::Rotate(plan) => Some(plan.policy.clone()),
        Plan::Retire(_) => None,
    });
    let Some(policy) = newest else { return Ok(Vec::new()) };
    let mut begun = Vec::new();
    for pair in due(&pairs) {
        let Some(head) = heads.iter().find(|head| head.id == pair.rotation) else { continue };
        let plan = Plan::Retire(RetirePlan {
            fleet: fleet.clone(),
            place: head.plan.place().clone(),
            key_name: pair.key_name.clone(),
            rotation: pair.rotation,
            soak: policy.soak,
            grace: policy.grace,
            proven: matches!(policy.verify, Verify::Ssh(_)) && !adopted(head),
        });
        match tools.journal.begin(new_id(tools), &plan, &[], &tools.author, tools.clock.now()).await {
            Ok(head) => {
                announce(tools, &head).await?;
                begun.push(head);
            }
            // Begun by another process between our reading and our writing: that one will do. Or a rotation binds the
            // pair again, or an earlier retire journal of it is still to end for that.
            Err(StoreError::Open { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(begun)
}

/// Whether a pair was adopted: which machines it had before the journals were lost, nobody knows, so only a person lets its
/// private half be destroyed.
fn adopted(head: &Head) -> bool {
    matches!(&head.plan, Plan::Rotate(plan) if matches!(plan.key, KeySource::Adopted { .. }))
}

/// What the journals of one fleet, oldest first, say of its pairs.
pub(super) fn pairs(heads: &[&Head]) -> Vec<Pair> {
    let retired = |after: usize, name: &_| {
        heads[after..].iter().any(|head| matches!(&head.plan, Plan::Retire(plan) if plan.key_name == *name))
    };
    let pair = |(index, head): (usize, &&Head)| match &head.plan {
        Plan::Rotate(plan) => Some(Pair {
            rotation: head.id,
            key_name: plan.key_name.clone(),
            strangers: plan.key.is_strangers(),
            undoes: plan.undoes,
            ended: head.ended.map(|(_, outcome)| outcome),
            retired: retired(index, &plan.key_name),
        }),
        Plan::Retire(_) => None,
    };
    heads.iter().enumerate().filter_map(pair).collect()
}
