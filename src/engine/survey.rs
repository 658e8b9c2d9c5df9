//! A survey: looks at clouds, custody and machines, and holds them against the journals. It reads and offers public halves;
//! it must never write a journal, change anything anywhere, or take for drift what it could not see.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use crate::model::{
    AccountName, FleetName, HostKey, Instance, InstanceId, JournalId, KeyPair, KeyPairName, Login, Power, PublicKey,
    Region, Timestamp,
};
use crate::provider::{Provider, Select};
use crate::rotation::ledger::{Half, Ledger, Looks, Offered};
use crate::rotation::retire;
use crate::rotation::{
    Deviation, Holdings, Named, Outcome, Place, Plan, PlannedInstance, Retirement, Rotation, Verify,
};
use crate::ssh::{LoginProbe, Target};
use crate::store::{Head, Heads};

use super::act::{Way, load};
use super::drive::pairs as pairs_of;
use super::planner::Fleet;
use super::unseen::{Blind, Unseen};
use super::{EngineError, Tools};

/// So many machines are asked at once.
const AT_ONCE: usize = 16;
/// Rotations whose pairs are gone, and that are read all the same: what they bound may still be taken.
const BEFORE: usize = crate::rotation::ledger::SUPERSEDED_MAX;

/// What a survey found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// When its first look began.
    pub at: Timestamp,
    /// What is not as the journals have it, by kind and subject.
    pub deviations: Vec<Deviation>,
    /// What could not be seen, and why: of that it says nothing.
    pub unseen: Vec<String>,
    /// Who or what did not answer.
    pub blind: BTreeSet<Blind>,
    /// So many machines were not reached, to be offered old keys or to show host keys: no evidence of anything.
    pub unreached: usize,
    /// How full the places for key pairs are, where it is known how many there are.
    pub places: Vec<KeyPairPlaces>,
}

/// The places for key pairs of one account in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairPlaces {
    /// The account.
    pub account: AccountName,
    /// The region.
    pub region: Region,
    /// So many key pairs are there, whoever made them.
    pub taken: usize,
    /// So many may be: the account's quota where the cloud tells it, else what the cloud's pages say.
    pub max: usize,
}

impl Survey {
    /// One that has seen nothing amiss so far.
    pub fn empty(at: Timestamp) -> Self {
        let (deviations, unseen, blind, places) = Default::default();
        Self { at, deviations, unseen, blind, unreached: 0, places }
    }

    fn miss(&mut self, Unseen { blind, why }: Unseen) {
        self.blind.insert(blind);
        self.unseen.push(why);
    }
}

/// Surveys a fleet. `driven`: somebody drives the store, so that a start which is owed for a short while is being paid.
pub async fn fleet(tools: &Tools, fleet: &Fleet, driven: bool) -> Survey {
    let at = tools.clock.now();
    look_at_fleet(tools, fleet, driven, at).await.unwrap_or_else(|unseen| {
        let mut survey = Survey::empty(at);
        survey.miss(unseen);
        survey
    })
}

/// The journals of a fleet in one place, as far back as they matter.
type Rotations = Vec<(Rotation, Vec<PlannedInstance>)>;

async fn look_at_fleet(tools: &Tools, fleet: &Fleet, driven: bool, at: Timestamp) -> Result<Survey, Unseen> {
    let provider = (tools.providers)(&fleet.place).map_err(Unseen::no_provider)?;
    let provider = provider.as_ref();
    let before = heads_of(tools, fleet).await?;
    let mut rotations = rotations(tools, &before, &fleet.place).await?;
    let ledger = Ledger::of(&fleet.name, current(&before).as_ref(), &rotations, at);

    let listed = provider.instances(&fleet.select).await.map_err(Unseen::cloud("its instances"))?;
    let is_listed: BTreeSet<&InstanceId> = listed.iter().map(|seen| &seen.id).collect();
    let left: Vec<InstanceId> = ledger.instances().filter(|id| !is_listed.contains(id)).cloned().collect();
    let others = match left.is_empty() {
        true => Vec::new(),
        false => provider.instances(&Select::Ids(left)).await.map_err(Unseen::cloud("its instances"))?,
    };
    let pairs = pairs(tools, provider, &ledger).await?;
    let halves = halves(tools, &ledger).await?;

    // What was journalled while the clouds were looked at: it is newer than the looks, and the ledger knows.
    let after = heads_of(tools, fleet).await?;
    if after != before {
        rotations = self::rotations(tools, &after, &fleet.place).await?;
    }
    let meant = current(&after);
    let mut ledger = Ledger::of(&fleet.name, meant.as_ref(), &rotations, at);
    let seen: Vec<&Instance> = listed.iter().chain(&others).collect();
    let elsewhere = taken_over(tools, fleet, &ledger, &pairs, &seen).await?;
    if !elsewhere.is_empty() {
        rotations.extend(elsewhere);
        // Ids sort by time; no two rotations that have an instance in common begin in one millisecond.
        rotations.sort_by_key(|(rotation, _)| rotation.id);
        ledger = Ledger::of(&fleet.name, meant.as_ref(), &rotations, at);
    }
    let retired = retired(tools, &after).await?;
    let mut survey = Survey::empty(at);
    let mut offered = BTreeMap::new();
    match offer(tools, fleet, &ledger, &seen).await {
        Ok(answers) => (offered, survey.unreached) = answers,
        // The machines: all else was seen.
        Err(unseen) => survey.miss(unseen),
    }
    let looks = Looks {
        at,
        listed: &listed,
        others: &others,
        pairs: &pairs,
        retired: &retired,
        halves: &halves,
        offered: &offered,
        driven,
    };
    survey.deviations = ledger.judge(&looks);
    Ok(survey)
}

/// The heads of a fleet's journals. One that cannot be read, and may be the fleet's, leaves nothing to hold the world
/// against.
async fn heads_of(tools: &Tools, fleet: &Fleet) -> Result<Vec<Head>, Unseen> {
    let heads = heads(tools).await?;
    let may_be = |name: &Option<FleetName>| name.as_ref().is_none_or(|name| *name == fleet.name);
    if let Some(one) = heads.unreadable.iter().find(|one| may_be(&one.fleet)) {
        return Err(Unseen::journals(format!("journal {} cannot be read: {}", one.journal, one.problem)));
    }
    Ok(heads.readable.into_iter().filter(|head| *head.plan.fleet() == fleet.name).collect())
}

async fn heads(tools: &Tools) -> Result<Heads, Unseen> {
    tools.journal.heads().await.map_err(|error| Unseen::journals(format!("the journals: {error}")))
}

/// The pair that a fleet is meant to hang on.
fn current(heads: &[Head]) -> Option<KeyPairName> {
    let heads: Vec<&Head> = heads.iter().collect();
    retire::current(&pairs_of(&heads)).cloned()
}

/// The rotations of these heads in a place, from the oldest on whose pair may still be there, and a few before it.
async fn rotations(tools: &Tools, heads: &[Head], place: &Place) -> Result<Rotations, Unseen> {
    let there = |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && is_same(head.plan.place(), place);
    let rotations: Vec<&Head> = heads.iter().filter(there).collect();
    let mut gone: BTreeSet<&KeyPairName> = BTreeSet::new();
    for head in heads {
        match (&head.plan, head.ended) {
            // A rollback binds a pair again that was deleted.
            (Plan::Rotate(plan), _) => drop(gone.remove(&plan.key_name)),
            (Plan::Retire(plan), Some((_, Outcome::Retired | Outcome::Kept))) => drop(gone.insert(&plan.key_name)),
            (Plan::Retire(_), _) => {}
        }
    }
    let first = rotations.iter().position(|head| !gone.contains(head.plan.key_name())).unwrap_or(rotations.len());
    let mut read = Vec::new();
    for head in &rotations[first.saturating_sub(BEFORE)..] {
        read.extend(self::read(tools, head.id).await?);
    }
    Ok(read)
}

async fn read(tools: &Tools, id: JournalId) -> Result<Option<(Rotation, Vec<PlannedInstance>)>, Unseen> {
    let unseen = |error: EngineError| Unseen::journals(format!("journal {id}: {error}"));
    load(tools.journal.as_ref(), id).await.map_err(unseen)
}

fn is_same(one: &Place, other: &Place) -> bool {
    (one.provider, &one.account, &one.region) == (other.provider, &other.account, &other.region)
}

/// The pairs whose deletion was asked for, and that nobody bound again since.
async fn retired(tools: &Tools, heads: &[Head]) -> Result<BTreeSet<KeyPairName>, Unseen> {
    let mut names = BTreeSet::new();
    for head in heads {
        let plan = match &head.plan {
            Plan::Rotate(plan) => {
                names.remove(&plan.key_name);
                continue;
            }
            Plan::Retire(plan) => plan,
        };
        let asked = match head.ended {
            Some((_, outcome)) => outcome != Outcome::Recalled,
            None => {
                let failed = |error: &dyn std::fmt::Display| Unseen::journals(format!("journal {}: {error}", head.id));
                let entries = tools.journal.read(head.id, 0).await.map_err(|error| failed(&error))?;
                let retirement = Retirement::fold(head.id, plan.clone(), &entries).map_err(|error| failed(&error))?;
                retirement.asked.is_some() || retirement.deleted.is_some()
            }
        };
        if asked {
            names.insert(plan.key_name.clone());
        }
    }
    Ok(names)
}

/// The pairs with our mark. One in use that the listing does not show is asked for by name: a listing may lag.
async fn pairs(tools: &Tools, provider: &dyn Provider, ledger: &Ledger) -> Result<Vec<KeyPair>, Unseen> {
    let failed = Unseen::cloud("its key pairs");
    let mut pairs = provider.key_pairs(&tools.mark.prefix()).await.map_err(&failed)?;
    for name in ledger.names() {
        if !pairs.iter().any(|pair| pair.name == *name) {
            pairs.extend(provider.find_key_pair(name).await.map_err(&failed)?);
        }
    }
    Ok(pairs)
}

/// What custody has of the pairs in use.
async fn halves(tools: &Tools, ledger: &Ledger) -> Result<BTreeMap<KeyPairName, Half>, Unseen> {
    use crate::custody::CustodyError;
    let mut halves = BTreeMap::new();
    for name in ledger.names() {
        let half = match tools.custody.get(name).await {
            Ok(key) => Half::Kept(key.public().clone()),
            Err(CustodyError::Missing(_)) => Half::Lacking("not in custody".to_string()),
            Err(error @ CustodyError::Damaged { .. }) => Half::Lacking(error.to_string()),
            Err(error) => return Err(Unseen::custody(error)),
        };
        halves.insert(name.clone(), half);
    }
    Ok(halves)
}

/// The rotations of other fleets whose pairs are bound where this fleet's were recorded: an instance may have changed fleets.
async fn taken_over(
    tools: &Tools,
    fleet: &Fleet,
    ledger: &Ledger,
    pairs: &[KeyPair],
    seen: &[&Instance],
) -> Result<Rotations, Unseen> {
    let otherwise = seen.iter().filter(|seen| !ledger.agrees(seen)).flat_map(|seen| &seen.keys);
    let shown: BTreeSet<&KeyPairName> =
        otherwise.filter_map(|id| Some(&pairs.iter().find(|pair| pair.id == *id)?.name)).collect();
    let mut rotations = Vec::new();
    if shown.is_empty() {
        return Ok(rotations);
    }
    for head in heads(tools).await?.readable {
        let is_other = *head.plan.fleet() != fleet.name && is_same(head.plan.place(), &fleet.place);
        if is_other && matches!(head.plan, Plan::Rotate(_)) && shown.contains(head.plan.key_name()) {
            rotations.extend(read(tools, head.id).await?);
        }
    }
    Ok(rotations)
}

/// A machine, and the keys that it should not take any more.
struct Job {
    id: InstanceId,
    target: Option<Target>,
    pin: Option<HostKey>,
    keys: Vec<(KeyPairName, PublicKey)>,
}

/// Offers each running machine the keys that were superseded on it, and reads the host key of those that have none but are
/// known by one, where logins prove keys. An open rotation does so itself. Answers also how many machines could not be asked;
/// Err: why none was.
async fn offer(
    tools: &Tools,
    fleet: &Fleet,
    ledger: &Ledger,
    seen: &[&Instance],
) -> Result<(BTreeMap<InstanceId, Offered>, usize), Unseen> {
    let Verify::Ssh(login) = &fleet.verify else { return Ok(Default::default()) };
    if ledger.is_open() {
        return Ok(Default::default());
    }
    let way = Way::open(tools, login).map_err(Unseen::machines)?;
    let job = |seen: &&&Instance| Job {
        id: seen.id.clone(),
        target: way.target(seen).ok(),
        // A disk that was made anew has other host keys.
        pin: ledger.pin(&seen.id).filter(|pin| !pin.is_outlived(seen.image.as_ref())).map(|pin| pin.host_key.clone()),
        keys: ledger.superseded(&seen.id),
    };
    let running = seen.iter().filter(|seen| seen.power == Power::Running);
    let jobs: Vec<Job> =
        running.map(|seen| job(&seen)).filter(|job| !job.keys.is_empty() || job.pin.is_some()).collect();
    let probe = tools.probe.as_ref();
    let answers: Vec<(InstanceId, Option<Offered>)> =
        stream::iter(jobs).map(|job| offer_to(probe, job)).buffer_unordered(AT_ONCE).collect().await;
    let unreached = answers.iter().filter(|(_, offered)| offered.is_none()).count();
    Ok((answers.into_iter().filter_map(|(id, offered)| Some((id, offered?))).collect(), unreached))
}

/// `None`: it could not be asked, or not to the end and has taken none so far.
async fn offer_to(probe: &dyn LoginProbe, job: Job) -> (InstanceId, Option<Offered>) {
    let Some(target) = job.target else { return (job.id, None) };
    if let (true, Some(pinned)) = (job.keys.is_empty(), &job.pin) {
        // A key exchange and no login: nothing is offered.
        let offered = probe.host_key(&target, Some(pinned)).await.ok().map(|host| match host.host_key == *pinned {
            true => Offered::Takes(Vec::new()),
            false => Offered::OtherHost { pinned: pinned.clone(), seen: host.host_key },
        });
        return (job.id, offered);
    }
    let mut takes = Vec::new();
    for (name, public_key) in job.keys {
        match (probe.offer(&target, job.pin.as_ref(), &public_key).await, &job.pin) {
            (Login::Accepted(_), _) => takes.push(name),
            (Login::Refused(_), _) => {}
            (Login::WrongHost(host), Some(pinned)) => {
                return (job.id, Some(Offered::OtherHost { pinned: pinned.clone(), seen: host.host_key }));
            }
            (Login::Unreachable { .. } | Login::WrongHost(_), _) if takes.is_empty() => return (job.id, None),
            (Login::Unreachable { .. } | Login::WrongHost(_), _) => break,
        }
    }
    (job.id, Some(Offered::Takes(takes)))
}

/// Surveys what belongs to no fleet alone: key pairs that no journal knows, private halves that nobody needs. `fleets` are
/// those of the file.
pub async fn holdings(tools: &Tools, fleets: &[Fleet]) -> Survey {
    let at = tools.clock.now();
    let mut survey = Survey::empty(at);
    let mut places: Vec<Place> = Vec::new();
    for fleet in fleets {
        if !places.iter().any(|place| is_same(place, &fleet.place)) {
            places.push(fleet.place.clone());
        }
    }
    let mut pairs = Vec::new();
    for place in places {
        let name = format!("account {}, {}", place.account, place.region);
        match pairs_at(tools, &place).await {
            Ok((found, places)) => {
                pairs.extend(found.into_iter().map(|pair| (name.clone(), pair)));
                survey.places.extend(places);
            }
            Err(unseen) => survey.miss(unseen.of(&name)),
        }
    }
    let whole = survey.unseen.is_empty();
    let halves = match tools.custody.list().await {
        Ok(halves) => halves,
        Err(error) => {
            survey.miss(Unseen::custody(error));
            Vec::new()
        }
    };
    // After the looks: whoever makes a pair or a half writes its journal first.
    match heads(tools).await {
        Ok(heads) => match heads.unreadable.first() {
            Some(one) => {
                survey.miss(Unseen::journals(format!("journal {} cannot be read: {}", one.journal, one.problem)));
            }
            None => {
                let named: Vec<Named<'_>> = heads.readable.iter().map(named).collect();
                let holdings = Holdings { at, named: &named, pairs: &pairs, whole, halves: &halves };
                survey.deviations = holdings.judge();
            }
        },
        Err(unseen) => survey.miss(unseen),
    }
    survey
}

/// The pairs with our mark, and how full the places are. Where there is no limit to pairs, others' are not listed.
async fn pairs_at(tools: &Tools, place: &Place) -> Result<(Vec<KeyPair>, Option<KeyPairPlaces>), Unseen> {
    let provider = (tools.providers)(place).map_err(Unseen::no_provider)?;
    let (ours, documented) = (tools.mark.prefix(), provider.limits().key_pairs_max);
    let asked = if documented.is_some() { "" } else { &ours };
    let mut pairs = provider.key_pairs(asked).await.map_err(Unseen::cloud("key pairs"))?;
    let taken = pairs.len();
    pairs.retain(|pair| pair.name.as_str().starts_with(&ours));
    // That an account may not ask for its quota is no reason not to survey it: the pages' number does.
    let max = provider.key_pairs_max().await.ok().flatten().or(documented);
    let (account, region) = (place.account.clone(), place.region.clone());
    Ok((pairs, max.map(|max| KeyPairPlaces { account, region, taken, max })))
}

fn named(head: &Head) -> Named<'_> {
    Named { name: head.plan.key_name(), fleet: head.plan.fleet(), ended: head.ended }
}
