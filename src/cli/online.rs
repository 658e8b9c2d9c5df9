//! `rekeyd check --online`: whether each account will do, asked of its cloud where the file has fleets: credentials, clock,
//! key pairs, permissions, tags. It makes the looks that a plan begins with; it must never make a call that changes
//! something, nor knock at a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::config::Config;
use crate::daemon::{self, Clouds};
use crate::engine::Tools;
use crate::engine::planner::{Fleet, PlanError, propose};
use crate::model::{AccountName, ProviderKind, Region};
use crate::provider::{Denial, Error, Kind, NO_CREDENTIALS, Provider, denial, way_on};
use crate::rotation::Verify;
use crate::rotation::preflight::{Finding, Level, Rule, clock};

use super::output::{self, Output, Tone};
use super::{Scene, plan};

/// So many places are asked at once.
const AT_ONCE: usize = 8;

/// What was found out of an account in a region.
pub(super) struct Asked {
    account: AccountName,
    provider: ProviderKind,
    /// `None`: no fleet says one.
    region: Option<Region>,
    findings: Vec<Finding>,
}

impl Asked {
    /// Whether no rotation would begin there.
    pub(super) fn is_unfit(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Refusal)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "account": self.account, "provider": self.provider, "region": self.region, "ok": !self.is_unfit(),
            "findings": self.findings,
        })
    }

    pub(super) fn show(&self, out: Output) {
        let region = self.region.as_ref().map_or_else(String::new, |region| format!(" {region}"));
        out.line(out.tone(Tone::Strong, format!("account {}, {}{region}:", self.account, self.provider)));
        for finding in &self.findings {
            out.line(out.tone(plan::tone(finding.level), format!("  {:<9}{finding}", finding.level.name())));
        }
    }
}

/// Asks for every account, in each region where it has fleets.
pub(super) async fn ask(scene: &Scene, config: &Arc<Config>) -> Result<Vec<Asked>> {
    let clouds = Arc::new(Clouds::new(Arc::clone(config), scene.env.clone())?);
    let tools = &clouds.tools_to_plan();
    // No machine is asked for its host key: this is of accounts.
    let fleets: Vec<Fleet> =
        daemon::fleets(config).into_iter().map(|fleet| Fleet { verify: Verify::None, ..fleet }).collect();
    let mut places: BTreeMap<(&AccountName, &Region), Vec<&Fleet>> = BTreeMap::new();
    for fleet in &fleets {
        places.entry((&fleet.place.account, &fleet.place.region)).or_default().push(fleet);
    }
    let used: BTreeSet<&AccountName> = places.keys().map(|(account, _)| *account).collect();
    let unused = config.accounts.iter().filter(|(name, _)| !used.contains(name)).map(|(name, account)| Asked {
        account: name.clone(),
        provider: account.provider,
        region: None,
        findings: vec![Finding::new(Level::Warning, Rule::Cloud, "not asked: no fleet uses it, so no region is known")],
    });
    let mut all: Vec<Asked> = unused.collect();
    let asked = places.into_iter().map(|((account, region), there)| {
        let (fleets, provider) = (&fleets, there[0].place.provider);
        async move {
            let findings = of_place(tools, &there, fleets).await;
            Asked { account: account.clone(), provider, region: Some(region.clone()), findings }
        }
    });
    all.extend(stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await);
    all.sort_by(|one, other| (&one.account, &one.region).cmp(&(&other.account, &other.region)));
    Ok(all)
}

/// What is found out by these fleets of one account and region: by one of them all that a plan finds out, by the others
/// whom they select.
async fn of_place(tools: &Tools, there: &[&Fleet], all: &[Fleet]) -> Vec<Finding> {
    let place = &there[0].place;
    let provider = match (tools.providers)(place) {
        Ok(provider) => provider,
        Err(error) => return vec![Finding::new(Level::Refusal, Rule::Credentials, error.to_string())],
    };
    let (mut findings, mut tags, mut answered) = (Vec::new(), Vec::new(), false);
    for fleet in there {
        match look(tools, provider.as_ref(), fleet, all, findings.is_empty()).await {
            Ok((number, found)) => {
                tags.push(found_by(fleet, number));
                findings.extend(found);
            }
            Err(PlanError::Nobody { problem, .. }) => tags.push(nobody(fleet, &problem)),
            Err(PlanError::Denied { error, .. } | PlanError::Provider(error)) => {
                findings.push(refused(place.provider, &error));
                break;
            }
            Err(error) => {
                findings.push(Finding::new(Level::Refusal, Rule::Cloud, error.to_string()));
                break;
            }
        }
        answered = true;
    }
    if answered {
        findings.push(Finding::new(Level::Ok, Rule::Credentials, "the cloud takes them"));
    }
    let has_clock = findings.iter().any(|finding| finding.rule == Rule::Clock && finding.level == Level::Refusal);
    if let Some(difference) = provider.clock_difference().filter(|_| !has_clock) {
        findings.retain(|finding| finding.rule != Rule::Clock);
        findings.push(clock(Some(difference.as_secs())));
    }
    findings.extend(tags);
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.level), finding.rule));
    findings
}

/// How many machines a fleet selects and, where that is asked for, what else a plan of it finds out of the account.
async fn look(
    tools: &Tools,
    provider: &dyn Provider,
    fleet: &Fleet,
    all: &[Fleet],
    in_full: bool,
) -> Result<(usize, Vec<Finding>), PlanError> {
    if !in_full {
        return match provider.instances(&fleet.select).await?.len() {
            0 => Err(PlanError::Nobody {
                fleet: fleet.name.clone(),
                problem: "no instance matches its selection".into(),
            }),
            number => Ok((number, Vec::new())),
        };
    }
    // Where keys are delivered to is no matter of the account's.
    let fleet = &Fleet { deliver: Vec::new(), ..fleet.clone() };
    let proposal = propose(tools, fleet, all).await?;
    let of_account = |finding: &Finding| match finding.rule {
        Rule::Clock | Rule::KeyPairs | Rule::Permissions => true,
        Rule::Denials => finding.instances.is_empty(),
        _ => false,
    };
    Ok((proposal.instances.len(), proposal.findings.into_iter().filter(of_account).collect()))
}

fn found_by(fleet: &Fleet, number: usize) -> Finding {
    Finding::new(Level::Ok, Rule::Tags, format!("fleet {}: {}", fleet.name, output::count(number, "machine")))
}

fn nobody(fleet: &Fleet, problem: &str) -> Finding {
    Finding::new(Level::Refusal, Rule::Tags, format!("fleet {}: {problem}", fleet.name))
        .go("see that account, region and tags are those of the machines")
}

/// What an answer that ends the asking comes to.
fn refused(provider: ProviderKind, error: &Error) -> Finding {
    let rule = match error.kind {
        Kind::Denied => match denial(&error.code) {
            Denial::Credentials => Rule::Credentials,
            Denial::Clock => Rule::Clock,
            Denial::Permission => Rule::Permissions,
        },
        _ if error.code == NO_CREDENTIALS => Rule::Credentials,
        _ => Rule::Cloud,
    };
    let finding = Finding::new(Level::Refusal, rule, error.to_string());
    if error.kind == Kind::Denied { finding.go(way_on(provider, error)) } else { finding }
}
