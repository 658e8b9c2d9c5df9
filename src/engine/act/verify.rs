//! Verify: log in with the new key to each machine that is active (a stranger's is only offered), and offer it the old one. The address comes from a look
//! made just before, never from the plan. It changes nothing anywhere, so a hold does not stop it; it must never write
//! down a proof that no login gave.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream;

use crate::model::{
    Duration, HostKey, Image, Instance, InstanceId, KeyPairId, KeyPairName, Login, Pin, PrivateKey, PublicKey,
    Timestamp,
};
use crate::provider::Provider;
use crate::rotation::{
    Event, ExcludedInstance, Found, HoldReason, KeySource, OldKeyFound, Outcome, PinnedHost, Plan, ProofFinding,
    Rotation, Step, Verify,
};
use crate::ssh::{LoginProbe, Target};

use super::super::case::Case;
use super::super::look::{look, shared_since, sight};
use super::super::record::append;
use super::super::{EngineError, Tools};
use super::way::cut_off;
use super::{Done, Way, failed, hold, kept, look_interval};
use crate::rotation::Sight;

/// So many logins at once: sshd's own MaxStartups begins to refuse at ten, and each is another machine's.
pub(in crate::engine) const AT_ONCE: usize = 16;
/// So many logins an act: what else is under way in the journal is looked at in between.
const LOGINS_MAX: usize = 32;
/// A machine that refused the key is asked again after this: whoever counts failed logins there must not ban us.
const REFUSED_PAUSE: Duration = Duration::from_secs(20);

/// What a machine is to accept.
enum Key {
    /// Proven by a login.
    Ours(PrivateKey),
    /// A stranger's, whose private half nobody here has: proven by offering the public one.
    Theirs(PublicKey),
}

impl Key {
    fn public(&self) -> &PublicKey {
        match self {
            Self::Ours(key) => key.public(),
            Self::Theirs(key) => key,
        }
    }
}

/// One machine to be logged in to.
struct Job {
    id: InstanceId,
    target: Result<Target, String>,
    pinned: Option<HostKey>,
    image: Option<Image>,
    old: Vec<PublicKey>,
}

pub(super) async fn act(tools: &Tools, case: &mut Case, batch: u32) -> Result<Done, EngineError> {
    let step = Step::Verify(batch);
    let now = tools.clock.now();
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(look_interval(None, now))) };
    let Verify::Ssh(login) = case.rotation()?.plan.policy.verify.clone() else { return Ok(Done::Wait(REFUSED_PAUSE)) };
    let way = match Way::open(tools, &login) {
        Ok(way) => way,
        Err(error) => return failed(tools, case, step, cut_off(&error)).await,
    };
    if let Some(away_since) = case.rotation()?.cut_off_since(step) {
        // No machine's deadline counts the time in which nobody could be asked.
        append(tools, case, &[Event::Resumed { away_since }]).await?;
        return Ok(Done::Recorded);
    }
    let rotation = case.rotation()?;
    let awaits = |id: &&InstanceId| rotation.member(id).is_some_and(|member| member.awaits_proof());
    let ids: Vec<InstanceId> = rotation.batch(batch).iter().filter(awaits).cloned().collect();
    let since = shared_since(now);
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await {
        return failed(tools, case, step, error).await;
    }
    let key = match &case.rotation()?.plan.key {
        KeySource::Stranger { public_key: Some(key), .. } => Key::Theirs(key.clone()),
        // Nothing can prove it, and nobody awaits a proof.
        KeySource::Stranger { public_key: None, .. } => return Ok(Done::Wait(REFUSED_PAUSE)),
        KeySource::Generate | KeySource::Existing { .. } | KeySource::Adopted { .. } => match kept(tools, case).await {
            Ok(Ok(key)) => Key::Ours(key),
            Err(error) => return failed(tools, case, step, error).await,
            Ok(Err(problem)) => return hold(tools, case, HoldReason::Custody { problem }).await,
        },
    };
    know_publics(tools, case, provider.as_ref(), &ids).await?;
    let public_key = key.public().clone();
    let rotation = case.rotation()?;
    let mut jobs: Vec<Job> = ids
        .iter()
        .filter_map(|id| match sight(case, id, since, now)? {
            Sight::Seen(seen) => Some(job(&way, rotation, seen, &case.publics, &case.compromised)),
            Sight::Missing => None,
        })
        .collect();
    // A part of them, another one each time: the journal's other machines do not wait for those that do not answer.
    let from = if jobs.is_empty() { 0 } else { case.logins * LOGINS_MAX % jobs.len() };
    jobs.rotate_left(from);
    jobs.truncate(LOGINS_MAX);
    let probe = tools.probe.as_ref();
    let key = &key;
    let mut answers: Vec<(Job, Login, Option<OldKeyFound>)> =
        stream::iter(jobs).map(|job| prove(probe, job, key)).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|a, b| a.0.id.cmp(&b.0.id));

    case.logins = case.logins.wrapping_add(1);
    let rotation = case.rotation()?;
    let now = tools.clock.now();
    let (mut proofs, mut excluded, mut late) = (Vec::new(), Vec::new(), BTreeMap::<String, Vec<InstanceId>>::new());
    let (mut wrong, mut refused, mut reimaged) = (None, false, Vec::new());
    for (job, answer, old_key) in answers {
        refused |= matches!(answer, Login::Refused(_));
        match rotation.proof_finding(&job.id, job.image.as_ref(), &answer, old_key, now) {
            ProofFinding::Wait => {}
            ProofFinding::Verified(proof) => proofs.push(proof),
            ProofFinding::Unproven { why } => late.entry(why).or_default().push(job.id),
            ProofFinding::Excluded(reason) => excluded.push(ExcludedInstance { instance: job.id, reason }),
            ProofFinding::Reimaged => reimaged.push(Job { pinned: None, ..job }),
            ProofFinding::Hold(reason) => wrong = Some(reason),
        }
    }
    let mut hosts = Vec::new();
    for job in reimaged {
        let (job, answer) = host_key(probe, job, &public_key).await;
        hosts.extend(pinned_anew(job, &answer));
    }
    let mut events = Vec::new();
    if !hosts.is_empty() {
        events.push(Event::Pinned { hosts });
    }
    if !proofs.is_empty() {
        events.push(Event::Verified { proofs });
    }
    events.extend(late.into_iter().map(|(why, instances)| Event::Unproven { instances, why }));
    if !excluded.is_empty() {
        events.push(Event::Excluded { instances: excluded });
    }
    if !events.is_empty() {
        append(tools, case, &events).await?;
    }
    if let Some(reason) = wrong {
        return match hold(tools, case, reason).await? {
            Done::Recorded => Ok(Done::Recorded),
            Done::Wait(wait) => Ok(if events.is_empty() { Done::Wait(wait) } else { Done::Recorded }),
        };
    }
    if !events.is_empty() {
        return Ok(Done::Recorded);
    }
    let oldest =
        case.rotation()?.batch(batch).iter().filter_map(|id| case.rotation().ok()?.member(id)?.active_at).min();
    Ok(Done::Wait(if refused { REFUSED_PAUSE } else { look_interval(oldest, now) }))
}

/// Reads the host keys of those that `step` is about to disturb, and writes them down; who cannot be reached is written
/// down too, so that it is asked once. `None`: all of them were asked.
pub(super) async fn pin(
    tools: &Tools,
    case: &mut Case,
    step: Step,
    found: &[Found],
) -> Result<Option<Done>, EngineError> {
    let Verify::Ssh(login) = case.rotation()?.plan.policy.verify.clone() else { return Ok(None) };
    let rotation = case.rotation()?;
    let Some((public_key, _)) = rotation.key.clone() else { return Ok(None) };
    let unasked = |found: &&Found| rotation.member(&found.instance).is_some_and(|member| !member.pin_asked);
    if !found.iter().any(|found| unasked(&found)) {
        return Ok(None);
    }
    let way = match Way::open(tools, &login) {
        Ok(way) => way,
        Err(error) => return failed(tools, case, step, cut_off(&error)).await.map(Some),
    };
    let none = BTreeMap::new();
    let jobs: Vec<Job> = found
        .iter()
        .filter(unasked)
        .filter_map(|found| case.seen.get(&found.instance, Timestamp::MIN)?.1)
        .map(|seen| job(&way, rotation, seen, &none, &[]))
        .collect();
    if jobs.is_empty() {
        return Ok(None);
    }
    let probe = tools.probe.as_ref();
    let public_key = &public_key;
    let mut answers: Vec<(Job, Login)> =
        stream::iter(jobs).map(|job| host_key(probe, job, public_key)).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let mut hosts = Vec::new();
    for (job, answer) in answers {
        let Login::WrongHost(seen) = &answer else {
            hosts.push(PinnedHost { instance: job.id.clone(), pin: pin_of(job.image, &answer), reimaged: false });
            continue;
        };
        if let Some(reason) = rotation.wrong_host(&job.id, job.image.as_ref(), &seen.host_key) {
            return hold(tools, case, reason).await.map(Some);
        }
        let (job, answer) = host_key(probe, Job { pinned: None, ..job }, public_key).await;
        hosts.extend(pinned_anew(job, &answer));
    }
    if hosts.is_empty() {
        // Made anew, and out of reach between two questions: it is asked again in a moment.
        return Ok(Some(Done::Wait(look_interval(None, tools.clock.now()))));
    }
    append(tools, case, &[Event::Pinned { hosts }]).await?;
    Ok(Some(Done::Recorded))
}

/// How a machine that gave this answer is known again.
fn pin_of(image: Option<Image>, answer: &Login) -> Option<Pin> {
    match answer {
        Login::Accepted(seen) | Login::Refused(seen) => Some(Pin { host_key: seen.host_key.clone(), image }),
        Login::WrongHost(_) | Login::Unreachable { .. } => None,
    }
}

/// The entry of a machine whose disk was made anew; `None`: it could not be reached just now.
fn pinned_anew(job: Job, answer: &Login) -> Option<PinnedHost> {
    let pin = pin_of(job.image, answer)?;
    Some(PinnedHost { instance: job.id, pin: Some(pin), reimaged: true })
}

/// `compromised`: what it must refuse besides the keys that it was found with.
fn job(
    way: &Way,
    rotation: &Rotation,
    seen: &Instance,
    publics: &BTreeMap<KeyPairId, PublicKey>,
    compromised: &[PublicKey],
) -> Job {
    let member = rotation.member(&seen.id);
    let found = member.and_then(|member| member.found.as_ref());
    let ours = rotation.key.as_ref().map(|(key, _)| key);
    let found = found.into_iter().flat_map(|found| &found.keys).filter_map(|key| publics.get(key));
    let mut old: Vec<PublicKey> = Vec::new();
    for key in found.chain(compromised).filter(|key| Some(*key) != ours) {
        if !old.contains(key) {
            old.push(key.clone());
        }
    }
    Job {
        id: seen.id.clone(),
        target: way.target(seen),
        pinned: member.and_then(|member| member.pin.as_ref()).map(|pin| pin.host_key.clone()),
        image: seen.image.clone(),
        old,
    }
}

/// Logs in with the new key, and offers the old ones.
async fn prove(probe: &dyn LoginProbe, job: Job, key: &Key) -> (Job, Login, Option<OldKeyFound>) {
    let target = match &job.target {
        Ok(target) => target,
        Err(why) => {
            let why = why.clone();
            return (job, Login::Unreachable { why }, None);
        }
    };
    let answer = match key {
        Key::Ours(key) => probe.login(target, job.pinned.as_ref(), key).await,
        Key::Theirs(key) => probe.offer(target, job.pinned.as_ref(), key).await,
    };
    let Login::Accepted(seen) = &answer else { return (job, answer, None) };
    let mut old_key = Some(OldKeyFound::NotKnown);
    for old in &job.old {
        match probe.offer(target, Some(&seen.host_key), old).await {
            Login::Accepted(_) => {
                old_key = Some(OldKeyFound::Taken);
                break;
            }
            Login::Refused(_) => old_key = Some(OldKeyFound::Refused),
            Login::Unreachable { .. } | Login::WrongHost(_) => {
                old_key = None;
                break;
            }
        }
    }
    (job, answer, old_key)
}

/// The host key of a machine. One that is known is asked for by its kind, with a key that is not bound yet; nobody is
/// logged in.
async fn host_key(probe: &dyn LoginProbe, job: Job, public_key: &PublicKey) -> (Job, Login) {
    let answer = match (&job.target, &job.pinned) {
        (Err(why), _) => Login::Unreachable { why: why.clone() },
        (Ok(target), Some(pinned)) => probe.offer(target, Some(pinned), public_key).await,
        (Ok(target), None) => match probe.host_key(target, None).await {
            Ok(seen) => Login::Refused(seen),
            Err(error) => Login::Unreachable { why: error.why },
        },
    };
    (job, answer)
}

/// The public halves of the pairs on which these were found, as far as journals know them, or the cloud shows them (a
/// stranger's), and those that must be refused where a compromised key is replaced: asked for once a process.
async fn know_publics(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    ids: &[InstanceId],
) -> Result<(), EngineError> {
    let (compromised, fleet) = {
        let plan = &case.rotation()?.plan;
        (plan.compromised, plan.fleet.clone())
    };
    if case.knows_publics || !(compromised || misses_publics(case, ids)?) {
        return Ok(());
    }
    let place = case.plan.place().clone();
    let heads = tools.journal.heads().await?.readable;
    let retired: BTreeSet<KeyPairName> = heads
        .iter()
        .filter(|head| matches!(head.plan, Plan::Retire(_)) && matches!(head.ended, Some((_, Outcome::Retired))))
        .map(|head| head.plan.key_name().clone())
        .collect();
    for head in heads {
        let there = head.plan.place();
        let Plan::Rotate(plan) = &head.plan else { continue };
        if head.id == case.id || there.provider != place.provider || there.region != place.region {
            continue;
        }
        // One that cannot be read tells nothing: its pair is then one whose public half is not known.
        let (Ok(instances), Ok(entries)) =
            (tools.journal.instances(head.id).await, tools.journal.read(head.id, 0).await)
        else {
            continue;
        };
        if let Ok(rotation) = Rotation::fold(head.id, plan.clone(), &instances, &entries)
            && let (Some((public_key, _)), Some((_, id))) = (rotation.key, rotation.key_pair)
        {
            // Nobody knows since which of the fleet's keys the wrong hands have them: all whose private half is still there.
            // (Given up on the way, a rotation may have left machines that take an older one than the cloud shows.)
            if compromised && rotation.plan.fleet == fleet && !retired.contains(&rotation.plan.key_name) {
                case.compromised.push(public_key.clone());
            }
            case.publics.insert(id, public_key);
        }
    }
    if misses_publics(case, ids)? {
        // That they cannot be listed, or a cloud keeps public halves to itself, is no reason not to prove the new key.
        let pairs = provider.key_pairs("").await.unwrap_or_default();
        for (id, public_key) in pairs.into_iter().filter_map(|pair| Some((pair.id, pair.public_key?))) {
            case.publics.entry(id).or_insert(public_key);
        }
    }
    case.knows_publics = true;
    Ok(())
}

/// Whether one of these was found on a pair whose public half is not known yet.
fn misses_publics(case: &Case, ids: &[InstanceId]) -> Result<bool, EngineError> {
    let rotation = case.rotation()?;
    let found = ids.iter().filter_map(|id| rotation.member(id)?.found.as_ref());
    Ok(found.flat_map(|found| &found.keys).any(|key| !case.publics.contains_key(key)))
}
