//! What the demo's journals say, held against its simulated guests. It must never believe the journals alone.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::model::Mark;
use crate::rotation::{Outcome, Part, Plan};
use crate::sim::serve::Running;
use crate::sim::{Promise, TAGS};

use super::super::journals::{Folded, Journals};
use super::super::output::count;
use super::{ROTATIONS, is_retired};

/// A row for each fleet, and whatever is not as it must be: what the journals say is held against the guests.
pub(super) async fn look_back(config: &Config, running: &Running) -> Result<(Vec<Vec<String>>, Vec<String>)> {
    let (mut rows, mut short) = (Vec::new(), Vec::new());
    let journals = Journals::open(config).await?;
    for (name, fleet) in &config.fleets {
        let provider = config.accounts.get(&fleet.account).map(|account| account.provider).context("no account")?;
        let heads = journals.heads_of(name).await?;
        let completed = |head: &&crate::store::Head| {
            matches!(head.plan, Plan::Rotate(_)) && matches!(head.ended, Some((_, Outcome::Completed)))
        };
        let Some(newest) = heads.iter().rev().find(completed) else {
            short.push(format!("{name}: no rotation completed"));
            continue;
        };
        let Folded::Rotation(rotation, planned) = journals.fold(newest).await? else { continue };
        let number = |which: &dyn Fn(&crate::rotation::Member) -> bool| {
            rotation.members().filter(|(_, member)| which(member)).count()
        };
        let rotations = heads.iter().filter(completed).count();
        let mut retired = 0;
        for head in &heads {
            retired += usize::from(is_retired(head, &journals.entries(head.id).await?));
        }
        let excluded: Vec<_> = rotation.members().filter(|(_, member)| member.excluded.is_some()).collect();
        let left_out: BTreeSet<String> =
            planned.iter().filter(|one| matches!(one.part, Part::Excluded(_))).map(|one| one.id.to_string()).collect();
        rows.push(vec![
            name.to_string(),
            rotations.to_string(),
            number(&|member| member.active).to_string(),
            number(&|member| member.is_straggler()).to_string(),
            left_out.len().to_string(),
            excluded.len().to_string(),
            retired.to_string(),
            journals.whereabouts(newest.plan.key_name()),
        ]);
        let mut say = |problem: String| short.push(format!("{name}: {problem}"));
        excluded.iter().for_each(|(id, _)| say(format!("{id} was excluded")));
        if rotations < ROTATIONS || retired + 1 != rotations {
            say(format!("{rotations} rotations and {retired} retirements ended"));
        }
        if journals.has_key(newest.plan.key_name()) != Some(true) {
            say("custody does not hold the newest private key".to_string());
        }
        let world = running.world();
        let world = world.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cloud) = world.clouds().iter().position(|cloud| cloud.kind == provider) else { continue };
        let prefix = config.installation.as_ref().map(Mark::prefix).unwrap_or_default();
        let promise = Promise {
            cloud,
            tag: (TAGS[1].0.to_string(), TAGS[1].1.to_string()),
            unavailable_max: rotation.plan.policy.unavailable_max as usize,
            canary: 1,
            prefix: prefix.clone(),
            ..Promise::default()
        };
        promise.unkept(&world, newest.plan.key_name().as_str(), &left_out).into_iter().for_each(&mut say);
        let ours = world.cloud(cloud).key_pairs().iter().filter(|pair| pair.name.starts_with(&prefix)).count();
        if ours != 1 {
            say(format!("{} of ours in the cloud", count(ours, "key pair")));
        }
        for broken in world.cloud(cloud).violations() {
            say(format!("a rule of the cloud was broken: {broken:?}"));
        }
    }
    Ok((rows, short))
}
