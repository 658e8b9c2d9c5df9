//! What other rooms take of the config file, filled in from it: places, fleets, and what the file's checks must know of a
//! cloud. Pure; it must never decide anything that the file does not say.

use crate::config::{self, Config};
use crate::engine::planner::{Fleet, batch_time};
use crate::model::{FleetName, ProviderKind};
use crate::provider;
use crate::rotation::{Place, Rollout, hazard};

/// What the config room must know of a cloud.
pub fn cloud(kind: ProviderKind) -> config::Cloud {
    let limits = provider::limits(kind);
    config::Cloud {
        bind_max: limits.bind_max,
        key_pairs_max: limits.key_pairs_max,
        // Lighthouse shows nothing that a stop could hurt.
        endangers: hazard::stops(limits.disruption) && kind != ProviderKind::TencentLighthouse,
        batch_time: batch_time(limits.downtime),
        actions: provider::actions(kind),
    }
}

/// Where a fleet of the file lives.
pub fn place(config: &Config, fleet: &config::Fleet) -> Option<Place> {
    let account = config.accounts.get(&fleet.account)?;
    Some(Place {
        account: fleet.account.clone(),
        provider: account.provider,
        endpoint: account.endpoint(&fleet.region),
        region: fleet.region.clone(),
    })
}

/// A fleet as the planner takes it; `None` if the file has none of that name.
pub fn fleet(config: &Config, name: &FleetName) -> Option<Fleet> {
    let fleet = config.fleets.get(name)?;
    Some(Fleet {
        name: name.clone(),
        place: place(config, fleet)?,
        select: fleet.select.clone(),
        key_bits: fleet.key_bits,
        rollout: Rollout {
            canary: fleet.rollout.canary,
            batch_max: u32::try_from(fleet.rollout.batch_max).ok(),
            unavailable_max: fleet.rollout.unavailable_max,
            failures_max: fleet.rollout.failures_max,
            growth: fleet.rollout.growth,
            failures_in_a_row: fleet.rollout.failures_in_a_row,
            soak: fleet.rollout.soak,
        },
        force_stop: fleet.force_stop,
        allow: fleet.allow.clone(),
        grace: fleet.grace,
        verify: fleet.verify.clone(),
        windows: fleet.windows.clone(),
        hooks: fleet.hooks.clone(),
        deliver: fleet.deliver.clone(),
    })
}

/// All fleets of the file, as the planner takes them.
pub fn fleets(config: &Config) -> Vec<Fleet> {
    config.fleets.keys().filter_map(|name| fleet(config, name)).collect()
}
