//! Listings of a fleet that changes while its pages are read. No instance that was there throughout may be missing,
//! and none may come twice.

use std::sync::Arc;

use rekeyd::model::InstanceId;
use rekeyd::provider::Select;
use rekeyd::sim::{InstanceSpec, World};

use crate::rig::{Rig, TAG, by_tags, tags};

/// What happens between two pages.
#[derive(Clone, Copy, Debug)]
enum Move {
    Born(usize),
    Released(usize),
    Both,
}

/// Lists by `select` while `what` happens before the n-th call, and asks that whoever was there throughout is found.
async fn list_while(rig: &Arc<Rig>, select: &Select, nth: usize, what: Move) {
    let machine = || InstanceSpec { tags: tags(&[TAG]), ..InstanceSpec::default() };
    let staying: Vec<InstanceId> = (0..240).map(|_| rig.add(machine())).collect();
    // Strewn over the whole order, so that whichever end a cloud begins at, some stand on the page just read.
    let standing: Vec<InstanceId> = rig.ids(select).await;
    let leaving: Vec<String> = standing.iter().step_by(40).map(ToString::to_string).collect();
    let (leave, mut calls) = (leaving.clone(), 0);
    rig.tap.hook(Box::new(move |_, world: &mut World| {
        calls += 1;
        if calls == nth {
            let (born, released) = match what {
                Move::Born(count) => (count, 0),
                Move::Released(count) => (0, count),
                Move::Both => (3, 3),
            };
            for id in &leave[..released] {
                world.remove_instance(0, id);
            }
            for _ in 0..born {
                world.add_instance(0, machine());
            }
        }
        None
    }));
    let found = rig.ids(select).await;
    rig.tap.calm();
    let stayed = staying.iter().filter(|id| !leaving.contains(&id.to_string()));
    let missing: Vec<&InstanceId> = stayed.filter(|id| !found.contains(id)).collect();
    assert!(missing.is_empty(), "{what:?} before call {nth}: {} are missing", missing.len());
    for id in rig.with(|world| world.cloud(0).machines().iter().map(|machine| machine.id.clone()).collect::<Vec<_>>()) {
        rig.with(|world| world.remove_instance(0, &id));
    }
}

pub async fn machines_born_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    for nth in [2, 3] {
        list_while(&rig, &Select::All, nth, Move::Born(5)).await;
        list_while(&rig, &by_tags(&[TAG]), nth, Move::Born(5)).await;
    }
}

pub async fn machines_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    for nth in [2, 3] {
        list_while(&rig, &Select::All, nth, Move::Released(3)).await;
        list_while(&rig, &by_tags(&[TAG]), nth, Move::Released(3)).await;
    }
}

pub async fn as_many_born_as_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    for nth in [2, 3] {
        list_while(&rig, &Select::All, nth, Move::Both).await;
        list_while(&rig, &by_tags(&[TAG]), nth, Move::Both).await;
    }
}
