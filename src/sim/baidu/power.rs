//! BCC power: stop, start and reboot, of a batch and of one. A batch is all or nothing on states (FACTS 5.1).
//! It must never turn a machine off without charge in silence: that is done to the machine and written down.

use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::instances::missing;
use super::route::{self, Verb};
use crate::sim::cloud::Rule;
use crate::sim::door::Call;
use crate::sim::machine::{self, Power};
use crate::sim::world::World;

/// The most instances of a batch (FACTS 5.1; for reboot it is assumed).
const BATCH_MAX: usize = 100;

/// PUT /v2/instance/batchAction?stop (start, reboot).
pub(super) fn batch(world: &mut World, call: &Call<'_>, read: &route::Call, verb: Verb) -> Result<Value, Refused> {
    let ids = read.instance_ids()?;
    if ids.len() > BATCH_MAX {
        let refused = refused("InappropriateJSON", "At most 100 instances.");
        return Err(refused.breaking(Rule::Limit));
    }
    let no_charge = flags(read)?;
    let places: Vec<usize> = ids.iter().map(|id| able(world, call, id, verb)).collect::<Result<_, _>>()?;
    for place in places {
        begin(world, call, place, verb, no_charge);
    }
    Ok(json!({ "failedInstanceIdList": [] }))
}

/// PUT /v2/instance/{id}?stop (start, reboot).
pub(super) fn one(
    world: &mut World,
    call: &Call<'_>,
    read: &route::Call,
    verb: Verb,
    id: &str,
) -> Result<Value, Refused> {
    let no_charge = flags(read)?;
    let place = able(world, call, id, verb)?;
    begin(world, call, place, verb, no_charge);
    Ok(json!({}))
}

/// Checks `forceStop`, and says `stopWithNoCharge`.
fn flags(read: &route::Call) -> Result<bool, Refused> {
    read.flag("forceStop")?;
    read.flag("stopWithNoCharge")
}

/// The machine's place, if it can do this now.
fn able(world: &World, call: &Call<'_>, id: &str, verb: Verb) -> Result<usize, Refused> {
    let cloud = world.cloud(call.cloud);
    let place = cloud.position(id).ok_or_else(|| missing(id))?;
    let machine = &cloud.machines()[place];
    if let Some(code) = machine.refuses(call.action) {
        return Err(refused(code, format!("The instance {id} refuses this operation.")).blameless());
    }
    // The page names no code for a reboot in the wrong state: stop's is taken, which also means "not Running".
    let (needs, code) = match verb {
        Verb::Start => (Power::Stopped, "Instance.StartInstanceOperationForbidden"),
        Verb::Stop | Verb::Reboot => (Power::Running, "Instance.StopInstanceOperationForbidden"),
    };
    let message = format!("The instance {id} is not in a state for this operation.");
    match (verb, machine.power) {
        (_, power) if power == needs => Ok(place),
        (Verb::Start, Power::Isolated) => Err(refused("Instance.StartExpiredInstance", message)),
        (Verb::Start, Power::Pending) => Err(refused("Instance.StartInstanceWhenCreating", message)),
        _ => {
            let refused = refused(code, message);
            // Whoever saw another state a moment ago could not know.
            let lagging = machine.view(world.now()).power != machine.power;
            Err(if lagging { refused.blameless() } else { refused })
        }
    }
}

fn begin(world: &mut World, call: &Call<'_>, place: usize, verb: Verb, no_charge: bool) {
    let time = world.settings.operation_time;
    let course = match verb {
        Verb::Stop => machine::stop(time),
        Verb::Start => machine::start(time),
        Verb::Reboot => machine::reboot(time),
    };
    world.begin(call.cloud, place, call.action, call.request_id, course);
    if verb == Verb::Stop && no_charge {
        let machine = world.clouds[call.cloud].machine_at(place);
        machine.no_charge = true;
        let detail = format!("{} was stopped without charge: its place and its address may be gone", machine.id);
        world.cloud_mut(call.cloud).blame(Rule::Malformed, call.action, call.at, detail);
    }
}
