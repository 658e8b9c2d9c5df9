//! `rekeyd trust INSTANCE`: the host key that a machine showed is its own; the rotation that is held for it goes on. It
//! must never believe a key that nobody has seen: what is trusted is the one that the hold names.

use anyhow::{Result, bail};

use crate::model::InstanceId;
use crate::rotation::{HoldReason, Order};
use crate::store::DriverLock;

use super::target::{Desk, name};
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The instance for whose host key a rotation is held
    instance: String,
    /// Why, for whoever reads the journal
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    note: String,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let desk = Desk::open(scene, &format!("trust {}", arguments.instance)).await?;
    let instance = InstanceId::new(arguments.instance.clone());
    let mut others = Vec::new();
    for fleet in desk.fleets() {
        for head in desk.open_of(&fleet) {
            match desk.held(head).await? {
                Some(HoldReason::WrongHost { instance: held, seen, .. }) if held == instance => {
                    let order = Order::Trust { instance: instance.clone(), note: arguments.note.clone() };
                    desk.order(head, &order).await?;
                    let driven = DriverLock::is_held(&desk.config.store).unwrap_or(true);
                    let way =
                        if driven { "goes on".to_string() } else { format!("goes on with `rekeyd rotate {fleet}`") };
                    desk.out.line(format!("{fleet}: {instance} is known by {seen} from now on; {} {way}", name(head)));
                    desk.close().await;
                    return Ok(Exit::Done);
                }
                Some(HoldReason::WrongHost { instance: held, .. }) => others.push(held.to_string()),
                _ => {}
            }
        }
    }
    match others.is_empty() {
        true => bail!(
            "no rotation is held for a host key: there is nothing to trust {instance} in. What a machine shows is seen by whoever \
             drives: where no `rekeyd run` does, `rekeyd rotate FLEET` goes on with a rotation until it is held or ended"
        ),
        false => bail!("no rotation is held for the host key of {instance}; held for: {}", others.join(", ")),
    }
}
