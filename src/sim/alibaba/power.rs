//! ECS power: Stop, Start and Reboot, of many instances and of one. It must never turn a machine off for good without
//! saying so: what a stop costs (a public address, without KeepCharging) is done to the machine and written down.

use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::instances::status;
use super::params::Params;
use super::{twice, well_formed};
use crate::sim::cloud::Rule;
use crate::sim::door::Call;
use crate::sim::machine::{self, Machine, Power};
use crate::sim::world::World;

/// The most instances of one call (FACTS 4.1).
const BATCH_MAX: usize = 100;

/// What is asked of the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Stop,
    Start,
    Reboot,
}

/// StopInstances, StartInstances, RebootInstances: all or none, or `BatchOptimization=SuccessFirst`.
pub(super) fn many(world: &mut World, call: &Call<'_>, params: &Params, verb: Verb) -> Result<Value, Refused> {
    let ids = params.list("InstanceId")?;
    if ids.is_empty() {
        // The lists name this code with 404 and, for an empty list, with 403 (FACTS section 6).
        let refused = refused("InvalidInstanceId.NotFound", "The specified InstanceId does not exist.");
        return Err(refused.with_status(403).breaking(Rule::Malformed));
    }
    if ids.len() > BATCH_MAX {
        return Err(refused("InvalidParameter.TooManyInstanceIds", "At most 100 instances."));
    }
    if twice(&ids) || !ids.iter().all(|id| well_formed(id)) {
        return Err(refused("Abs.InvalidInstanceIds.MalFormed", "The instance ids are malformed."));
    }
    let success_first = params.word("BatchOptimization", &["AllTogether", "SuccessFirst"])? == Some("SuccessFirst");
    let ask = Ask::read(params, verb)?;
    let places: Vec<Result<usize, Refused>> = ids.iter().map(|id| able(world, call, id, verb)).collect();
    let dry_run = refused("DRYRUN.SUCCESS", "DryRun passed: the request would have succeeded.");
    if ask.dry_run && success_first {
        return Err(dry_run);
    }
    let places =
        if success_first { places } else { places.into_iter().map(|place| place.map(Ok)).collect::<Result<_, _>>()? };
    if ask.dry_run {
        return Err(dry_run);
    }
    let responses: Vec<Value> =
        ids.iter().zip(places).map(|(id, place)| response(world, call, id, place, &ask)).collect();
    Ok(json!({ "InstanceResponses": { "InstanceResponse": responses } }))
}

/// StopInstance, StartInstance, RebootInstance.
pub(super) fn one(world: &mut World, call: &Call<'_>, params: &Params, verb: Verb) -> Result<Value, Refused> {
    let id = params.required("InstanceId")?;
    let ask = Ask::read(params, verb)?;
    let place = able(world, call, id, verb)?;
    if ask.dry_run {
        return Err(refused("DryRunOperation", "Request validation has been passed with DryRun flag set."));
    }
    begin(world, call, place, &ask);
    Ok(json!({}))
}

/// The parameters that all of them share.
struct Ask {
    verb: Verb,
    dry_run: bool,
    keep_charging: bool,
}

impl Ask {
    fn read(params: &Params, verb: Verb) -> Result<Self, Refused> {
        params.flag("ForceStop")?;
        params.flag("ForceReboot")?;
        let mode = params.word("StoppedMode", &["KeepCharging", "StopCharging"])?;
        Ok(Self { verb, dry_run: params.flag("DryRun")?, keep_charging: mode == Some("KeepCharging") })
    }
}

/// The machine's place, if it can do this now.
fn able(world: &World, call: &Call<'_>, id: &str, verb: Verb) -> Result<usize, Refused> {
    let cloud = world.cloud(call.cloud);
    let missing = || refused("InvalidInstanceId.NotFound", format!("The specified InstanceId {id} does not exist."));
    let place = cloud.position(id).ok_or_else(missing)?;
    let machine = &cloud.machines()[place];
    if let Some(code) = machine.refuses(call.action) {
        return Err(refused(code, format!("The instance {id} refuses this operation.")).blameless());
    }
    let needs = if verb == Verb::Start { Power::Stopped } else { Power::Running };
    match machine.power {
        power if power == needs => Ok(place),
        Power::Isolated => Err(refused("InstanceExpiredOrInArrears", format!("The instance {id} is in arrears."))),
        _ => {
            let message = format!("The current status of the instance {id} does not support this operation.");
            let refused = refused("IncorrectInstanceStatus", message);
            // Whoever saw another state a moment ago could not know.
            let lagging = machine.view(world.now()).power != machine.power;
            Err(if lagging { refused.blameless() } else { refused })
        }
    }
}

/// Does it, or not, and says what came of it.
fn response(world: &mut World, call: &Call<'_>, id: &str, place: Result<usize, Refused>, ask: &Ask) -> Value {
    let power = |world: &World| {
        let machine = world.cloud(call.cloud).machine(id);
        machine.map_or("", |machine: &Machine| status(machine.power))
    };
    let before = power(world);
    let (code, message) = match place {
        Ok(place) => {
            begin(world, call, place, ask);
            ("200".to_string(), "success".to_string())
        }
        Err(refused) => {
            if let Some(rule) = refused.rule {
                world.cloud_mut(call.cloud).blame(rule, call.action, call.at, format!("{id} {}", refused.code));
            }
            (refused.code, refused.message)
        }
    };
    json!({
        "InstanceId": id,
        "Code": code,
        "Message": message,
        "PreviousStatus": before,
        "CurrentStatus": power(world),
    })
}

fn begin(world: &mut World, call: &Call<'_>, place: usize, ask: &Ask) {
    let time = world.settings.operation_time;
    let course = match ask.verb {
        Verb::Stop => machine::stop(time),
        Verb::Start => machine::start(time),
        Verb::Reboot => machine::reboot(time),
    };
    world.begin(call.cloud, place, call.action, call.request_id, course);
    if ask.verb == Verb::Stop && !ask.keep_charging {
        // The account's default is StopCharging: the address goes back and another one comes with the next start.
        let machine = world.clouds[call.cloud].machine_at(place);
        machine.no_charge = true;
        let (lost, number) = (machine.public_address.clone(), place % 254 + 1);
        // 203.0.113.0/24 is set aside for examples.
        machine.public_address = format!("203.0.113.{number}");
        let detail = format!("{} was stopped without StoppedMode=KeepCharging and lost {lost}", machine.id);
        world.cloud_mut(call.cloud).blame(Rule::Malformed, call.action, call.at, detail);
    }
}
