//! Listings of what changes while its pages are read. Nothing that was there throughout may be missing, and nothing may
//! come twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rekeyd::model::{InstanceId, ProviderKind};
use rekeyd::provider::Select;
use rekeyd::sim::{InstanceSpec, World};

use crate::rig::{Rig, TAG, by_tags, tags};

/// What happens between two pages: how many are made and how many go.
#[derive(Clone, Copy, Debug)]
struct Move {
    made: usize,
    gone: usize,
}

/// Lets `act` happen before the n-th call from now on; says how many calls there were.
fn before_call(rig: &Rig, nth: usize, mut act: impl FnMut(&mut World) + Send + 'static) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    rig.tap.hook(Box::new(move |_, world| {
        if count.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            act(world);
        }
        None
    }));
    calls
}

/// Lists the machines of a cloud of its own while they move, and asks that whoever was there throughout is found.
async fn machines_move(kind: ProviderKind, select: &Select, nth: usize, what: Move) {
    let machine = || InstanceSpec { tags: tags(&[TAG]), ..InstanceSpec::default() };
    let rig = Rig::new(kind);
    // Three pages; BCC's hold 1,000, and two must do.
    let count = if kind == ProviderKind::BaiduBcc { 1050 } else { 240 };
    let all: Vec<InstanceId> = (0..count).map(|_| rig.add(machine())).collect();
    // From both ends: whichever a cloud begins at, some stand on the page just read.
    let ends = (0..what.gone).flat_map(|at| [at * 3, count - 1 - at * 3]);
    let leaving: Vec<String> = ends.map(|at| all[at].to_string()).collect();
    let leave = leaving.clone();
    let calls = before_call(&rig, nth, move |world| {
        for id in &leave {
            world.remove_instance(0, id);
        }
        for _ in 0..what.made {
            world.add_instance(0, machine());
        }
    });
    let found = rig.ids(select).await;
    assert!(calls.load(Ordering::Relaxed) >= nth, "nothing moved");
    let missing = all.iter().filter(|id| !leaving.contains(&id.to_string()) && found.binary_search(id).is_err());
    assert_eq!(missing.count(), 0, "missing: {what:?} before call {nth} of {select:?}");
    assert!(rig.misdeeds().is_empty(), "{:?}", rig.misdeeds());
}

async fn machines_move_each_way(rig: &Rig, what: Move) {
    machines_move(rig.kind, &Select::All, 2, what).await;
    machines_move(rig.kind, &by_tags(&[TAG]), 2, what).await;
    if rig.kind != ProviderKind::BaiduBcc {
        machines_move(rig.kind, &Select::All, 3, what).await;
    }
}

pub async fn machines_made_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Move { made: 5, gone: 0 }).await;
}

pub async fn machines_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Move { made: 0, gone: 2 }).await;
}

pub async fn as_many_made_as_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Move { made: 4, gone: 2 }).await;
}

pub async fn pairs_that_come_and_go_between_two_pages_hide_none(rig: Arc<Rig>) {
    let kind = rig.kind;
    let page = if kind == ProviderKind::BaiduBcc { 1000 } else { rig.provider.limits().page_max };
    for (made, gone) in [(3, 0), (0, 3), (3, 3)] {
        let rig = Rig::new(kind);
        let count = page + 20;
        let names: Vec<String> = (0..count).map(|number| format!("rksim_{number:05}")).collect();
        let ids: Vec<String> = names.iter().map(|name| rig.pair(name).to_string()).collect();
        let at: Vec<usize> = (0..gone).flat_map(|at| [at * 2, count - 1 - at * 2]).collect();
        let leave: Vec<String> = at.iter().map(|at| ids[*at].clone()).collect();
        let calls = before_call(&rig, 2, move |world| {
            world.delete_key_pairs(0, &leave);
            for number in 0..made * 2 {
                world.add_strangers_pair(0, &format!("rksim_new{number}"));
            }
        });
        let found = rig.provider.key_pairs("rksim_").await.unwrap();
        assert!(calls.load(Ordering::Relaxed) >= 2, "nothing moved");
        let mut found: Vec<String> = found.into_iter().map(|pair| pair.name.to_string()).collect();
        found.sort();
        let (listed, mut stayed) = (found.len(), names.iter().enumerate().filter(|(number, _)| !at.contains(number)));
        found.dedup();
        assert_eq!(found.len(), listed, "a pair came twice");
        assert!(stayed.all(|(_, name)| found.binary_search(name).is_ok()), "missing: {made} made, {gone} gone");
    }
}
