//! Adopting what a lost database knew: looks at every fleet's cloud and at custody, and plans the rotations that record what
//! is there. They are begun and driven like any other, one after the other. It must never begin one where a journal is left
//! that tells more.

use std::collections::{BTreeMap, BTreeSet};

use crate::custody::CustodyError;
use crate::model::{FleetName, JournalId, KeyPair, KeyPairName};
use crate::provider::Error;
use crate::rotation::adopt::{AdoptedPair, Left, adopt};
use crate::rotation::{Draft, Half, KeySource, Part, Plan, Purpose};
use crate::store::{Head, Heads, StoreError};

use super::drive::Reached;
use super::planner::{Fleet, PlanError, Proposal, begin, claimed_by, planned_of};
use super::{Engine, EngineError, NoProvider, Tools};

/// Why nothing is adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There are journals: they know more than clouds and custody show.
    #[error(
        "the database holds journals: adopt is for a lost database only, and would know less than they do; `rekeyd drift` \
         shows where the world differs from them"
    )]
    Journals,
    /// There is nothing that could be adopted.
    #[error("custody holds no private key: there is nothing to adopt; `rekeyd rotate FLEET` begins")]
    NoKeys,
    /// An account cannot be used.
    #[error("fleet {0}: {1}")]
    Account(FleetName, NoProvider),
    /// A cloud did not answer well.
    #[error("fleet {0}: {1}")]
    Provider(FleetName, Error),
    /// Custody failed.
    #[error("custody: {0}")]
    Custody(#[from] CustodyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A rotation that records it did not begin.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It could not be driven.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is there to be adopted.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Rotations that record what is there: fleet by fleet, each fleet's current pair last.
    pub proposals: Vec<Proposal>,
    /// Fleets with who of them is not adopted.
    pub left: Vec<(FleetName, Vec<Left>)>,
    /// Pairs with our mark that nobody adopts, as nobody of a fleet hangs on them, or their private half is not there.
    pub pairs: Vec<KeyPairName>,
    /// Private halves in custody without an adopted pair. They are kept.
    pub halves: Vec<KeyPairName>,
}

/// Refuses a store with journals that an adoption did not write.
pub fn check(heads: &Heads) -> Result<(), AdoptError> {
    let adopts = |plan: &Plan| matches!(plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Adopt);
    match heads.unreadable.is_empty() && heads.readable.iter().all(|head| adopts(&head.plan)) {
        true => Ok(()),
        false => Err(AdoptError::Journals),
    }
}

/// Looks at all fleets of the file. Nothing is planned unless every cloud answers: a pair that is not seen would be a stranger
/// ever after.
pub async fn take_stock(tools: &Tools, fleets: &[Fleet]) -> Result<Inventory, AdoptError> {
    check(&tools.journal.heads().await?)?;
    let kept = tools.custody.list().await?;
    if kept.is_empty() {
        return Err(AdoptError::NoKeys);
    }
    let halves = halves(tools, &kept).await?;
    let mut inventory = Inventory { proposals: Vec::new(), left: Vec::new(), pairs: Vec::new(), halves: Vec::new() };
    let mut shown: BTreeSet<KeyPairName> = BTreeSet::new();
    for fleet in fleets {
        let of = |error| AdoptError::Provider(fleet.name.clone(), error);
        let provider =
            (tools.providers)(&fleet.place).map_err(|error| AdoptError::Account(fleet.name.clone(), error))?;
        let pairs: Vec<KeyPair> = provider.key_pairs(&tools.mark.prefix()).await.map_err(of)?;
        let listing = provider.instances(&fleet.select).await.map_err(of)?;
        shown.extend(pairs.iter().map(|pair| pair.name.clone()));
        let adoption = adopt(&listing, &pairs, &halves, &claimed_by(fleet, fleets));
        for pair in adoption.pairs {
            inventory.proposals.push(proposal(fleet, provider.limits(), pair));
        }
        if !adoption.left.is_empty() {
            inventory.left.push((fleet.name.clone(), adoption.left));
        }
    }
    let adopted: BTreeSet<&KeyPairName> = inventory.proposals.iter().map(|proposal| &proposal.plan.key_name).collect();
    inventory.pairs = shown.iter().filter(|name| !adopted.contains(name)).cloned().collect();
    inventory.halves = kept.into_iter().filter(|name| !adopted.contains(name)).collect();
    Ok(inventory)
}

/// Drives what an earlier run left open: a fleet has one open rotation at a time.
pub async fn go_on(engine: &mut Engine) -> Result<Vec<(JournalId, Reached)>, AdoptError> {
    let heads = engine.heads().await?;
    check(&heads)?;
    let mut reached = Vec::new();
    for head in heads.readable.iter().filter(|head| head.ended.is_none()) {
        reached.push((head.id, engine.drive(head.id).await?));
    }
    Ok(reached)
}

/// Begins and drives the rotations that no journal has yet, one after the other, until all are done or one is held.
pub async fn record(engine: &mut Engine, inventory: &Inventory) -> Result<Vec<(JournalId, Reached)>, AdoptError> {
    let heads = engine.heads().await?.readable;
    let mut reached = Vec::new();
    for proposal in inventory.proposals.iter().filter(|proposal| !is_recorded(&heads, proposal)) {
        let head = begin(engine.tools(), proposal).await?;
        let how = engine.drive(head.id).await?;
        let held = matches!(how, Reached::Held { .. });
        reached.push((head.id, how));
        if held {
            break;
        }
    }
    Ok(reached)
}

/// Whether a journal of the fleet has this pair already.
pub fn is_recorded(heads: &[Head], proposal: &Proposal) -> bool {
    let (fleet, name) = (&proposal.plan.fleet, &proposal.plan.key_name);
    heads.iter().any(|head| head.plan.fleet() == fleet && head.plan.key_name() == name)
}

/// What custody holds under our names.
async fn halves(tools: &Tools, kept: &[KeyPairName]) -> Result<BTreeMap<KeyPairName, Half>, AdoptError> {
    let mut halves = BTreeMap::new();
    for name in kept.iter().filter(|name| tools.mark.is_on(name)) {
        let half = match tools.custody.get(name).await {
            Ok(key) => Half::Kept(key.public().clone()),
            Err(error @ CustodyError::Damaged { .. }) => Half::Lacking(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        halves.insert(name.clone(), half);
    }
    Ok(halves)
}

fn proposal(fleet: &Fleet, limits: &crate::provider::Limits, pair: AdoptedPair) -> Proposal {
    let batched = pair.instances.iter().filter(|instance| matches!(instance.part, Part::Batch(_))).count();
    let draft = Draft {
        unavailable_max: fleet.rollout.unavailable_max.of(batched).max(1),
        // Nobody is disturbed: who refuses the key is excluded and named, and is no reason to stop.
        failures_max: u32::try_from(batched).unwrap_or(u32::MAX),
        growing: 1,
        instances: pair.instances,
    };
    let key = KeySource::Adopted { public_key: pair.public_key };
    planned_of(fleet, limits, draft, &BTreeMap::new(), pair.name, key, None).undisturbing()
}
