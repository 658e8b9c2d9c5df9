//! What is open is given up for what was asked: before a rollback, and before a compromised key is replaced. It must never
//! give up a rotation for something that is refused anyway.

use anyhow::bail;

use crate::clock::SystemClock;
use crate::daemon;
use crate::engine::Engine;
use crate::engine::drive::Reached;
use crate::engine::operate::operate;
use crate::model::{FleetName, JournalId};
use crate::rotation::{Author, Order, Plan};
use crate::store::{Head, Request};

use super::outcome::say_held;
use super::rotate::Round;

/// Why a rotation is given up for a compromised key, as its journal says it.
pub(super) const COMPROMISED: &str = "its fleet's key is compromised, and a new rotation begins";

impl Round<'_> {
    /// The open rotation that a compromised key does not wait for. What would be refused afterwards is refused before it is
    /// given up: a fleet that is held, or not in the file.
    pub(super) async fn in_the_way(&self, engine: &Engine, fleet: &FleetName) -> anyhow::Result<Option<JournalId>> {
        let heads = engine.heads().await?;
        let open = heads.of(fleet).filter(|head| head.ended.is_none());
        let is_other = |head: &&Head| matches!(&head.plan, Plan::Rotate(plan) if !plan.compromised);
        let Some(open) = open.filter(is_other).map(|head| head.id).next() else { return Ok(None) };
        if let Some(paused) = self.driver.agenda().paused().await?.remove(fleet).and_then(Request::refusal) {
            return Err(paused.into());
        }
        if daemon::fleet(self.config, fleet).is_none() {
            bail!(
                "there is no fleet {fleet:?} in the config file; its rotation {open} goes on by `rekeyd rotate {fleet}`"
            );
        }
        Ok(Some(open))
    }

    /// Gives up a rotation that is in the way, if it is open, and drives it to its end. `false`: it is held.
    pub(super) async fn give_up(
        &self,
        engine: &mut Engine,
        fleet: &FleetName,
        undone: JournalId,
        why: &str,
        by: &Author,
    ) -> anyhow::Result<bool> {
        let tools = engine.tools();
        let head = tools.journal.head(undone).await?;
        if head.ended.is_some() {
            return Ok(true);
        }
        let Plan::Rotate(plan) = &head.plan else { bail!("{undone} is no rotation") };
        self.can_read_credentials(&plan.place, &plan.policy.verify)?;
        let order = Order::Abandon { note: why.to_string() };
        operate(tools.journal.as_ref(), &SystemClock, undone, &order, by).await?;
        self.out.line(format!("{fleet}: rotation {undone} is given up; it ends once nothing is in flight"));
        match engine.drive(undone).await? {
            Reached::Ended(_) => Ok(true),
            Reached::Held { reason, down } => {
                if let Some(rotation) = engine.rotation(undone) {
                    say_held(self.out, rotation, &reason, &down);
                }
                Ok(false)
            }
        }
    }
}
