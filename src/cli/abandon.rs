//! `rekeyd abandon FLEET | ROTATION`: the open rotation ends once nothing is in flight and no start is owed, whatever is
//! bound by then. The next rotation takes over from there.

use anyhow::{Result, bail};

use crate::rotation::{Order, Plan};
use crate::store::Head;

use super::target::{Desk, Target, name};
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A fleet, or the id of its open rotation, or the beginning of one
    target: String,
    /// Why, for whoever reads the journal
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    note: String,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let desk = Desk::open(scene, &format!("abandon {}", arguments.target)).await?;
    let order = Order::Abandon { note: arguments.note.clone() };
    let head: Head = match desk.find(&arguments.target)? {
        Target::Journal(head) => *head,
        Target::Fleet(fleet) => {
            let open = desk.open_of(&fleet).into_iter().find(|head| matches!(head.plan, Plan::Rotate(_))).cloned();
            match open {
                Some(head) => head,
                None => bail!(
                    "{fleet} has no open rotation to give up; `rekeyd hold {fleet}` keeps the next one from beginning"
                ),
            }
        }
    };
    let entries = desk.order(&head, &order).await?;
    let fleet = head.plan.fleet();
    match entries.is_empty() {
        true => desk.out.line(format!("{fleet}: {} was given up already", name(&head))),
        false => desk.out.line(format!(
            "{fleet}: {} is given up: it ends once nothing is in flight and no start is owed; what is bound stays bound",
            name(&head)
        )),
    }
    desk.say_owed(&head).await?;
    desk.close().await;
    Ok(Exit::Done)
}
