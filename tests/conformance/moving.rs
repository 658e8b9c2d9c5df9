//! Listings of what changes while its pages are read. Nothing that was there throughout may be missing, and nothing may
//! come twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rekeyd::model::{InstanceId, ProviderKind};
use rekeyd::provider::Select;
use rekeyd::sim::{InstanceSpec, World};

use crate::rig::{Implementation, Rig, TAG, by_tags, tags};

/// Who goes between two pages.
#[derive(Clone, Copy, Debug)]
enum Gone {
    Nobody,
    /// Some of the first made and some of the last: whichever end a cloud begins at, some stand on the page just read.
    BothEnds,
    /// Only first ones.
    First,
    /// Only last ones.
    Last,
    /// Those around the ends of pages, whichever the cloud's order.
    Seams,
}

impl Gone {
    /// Where they stand among `count` in the order in which they were made.
    fn places(self, count: usize, page: usize) -> Vec<usize> {
        let mirror = |at: usize| count - 1 - at;
        match self {
            Self::Nobody => Vec::new(),
            Self::BothEnds => vec![0, 3, mirror(0), mirror(3)],
            Self::First => vec![0, 2, 5],
            Self::Last => vec![mirror(0), mirror(2), mirror(5)],
            Self::Seams => [page - 1, page, page + 1].into_iter().flat_map(|at| [at, mirror(at)]).collect(),
        }
    }
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

/// Lists the machines of a cloud of its own while some go and so many are made, and asks that whoever was there
/// throughout is found.
async fn machines_move(way: Implementation, select: &Select, nth: usize, gone: Gone, made: usize) {
    let machine = || InstanceSpec { tags: tags(&[TAG]), ..InstanceSpec::default() };
    let rig = Rig::new(way);
    // Three pages of a hundred; BCC's hold a thousand, and two must do.
    let (count, page) = if rig.kind == ProviderKind::BaiduBcc { (1050, 1000) } else { (240, 100) };
    let all: Vec<InstanceId> = (0..count).map(|_| rig.add(machine())).collect();
    let leaving: Vec<String> = gone.places(count, page).into_iter().map(|at| all[at].to_string()).collect();
    let leave = leaving.clone();
    let calls = before_call(&rig, nth, move |world| {
        for id in &leave {
            world.remove_instance(0, id);
        }
        for _ in 0..made {
            world.add_instance(0, machine());
        }
    });
    let found = rig.ids(select).await;
    assert!(calls.load(Ordering::Relaxed) >= nth, "nothing moved");
    let missing = all.iter().filter(|id| !leaving.contains(&id.to_string()) && found.binary_search(id).is_err());
    assert_eq!(missing.count(), 0, "missing: {gone:?} gone and {made} made before call {nth} of {select:?}");
    assert!(rig.misdeeds().is_empty(), "{:?}", rig.misdeeds());
}

async fn machines_move_each_way(rig: &Rig, gone: Gone, made: usize) {
    machines_move(rig.way, &Select::All, 2, gone, made).await;
    if rig.kind != ProviderKind::BaiduBcc {
        machines_move(rig.way, &Select::All, 3, gone, made).await;
        machines_move(rig.way, &by_tags(&[TAG]), 2, gone, made).await;
    }
}

pub async fn machines_made_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Gone::Nobody, 5).await;
}

pub async fn machines_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Gone::BothEnds, 0).await;
    machines_move_each_way(&rig, Gone::Seams, 0).await;
}

pub async fn as_many_made_as_released_between_two_pages_hide_nobody(rig: Arc<Rig>) {
    machines_move_each_way(&rig, Gone::First, 3).await;
    machines_move_each_way(&rig, Gone::Last, 3).await;
}

pub async fn pairs_that_come_and_go_between_two_pages_hide_none(rig: Arc<Rig>) {
    let way = rig.way;
    let page = if rig.kind == ProviderKind::BaiduBcc { 1000 } else { rig.provider.limits().page_max };
    for (gone, made) in [(Gone::Nobody, 5), (Gone::BothEnds, 0), (Gone::First, 3), (Gone::Last, 3)] {
        let rig = Rig::new(way);
        let count = page + 20;
        let names: Vec<String> = (0..count).map(|number| format!("rksim_{number:05}")).collect();
        let ids: Vec<String> = names.iter().map(|name| rig.pair(name).to_string()).collect();
        let places = gone.places(count, page);
        let leave: Vec<String> = places.iter().map(|at| ids[*at].clone()).collect();
        let calls = before_call(&rig, 2, move |world| {
            world.delete_key_pairs(0, &leave);
            for number in 0..made {
                world.add_strangers_pair(0, &format!("rksim_new{number}"));
            }
        });
        let found = rig.provider.key_pairs("rksim_").await.unwrap();
        assert!(calls.load(Ordering::Relaxed) >= 2, "nothing moved");
        let mut found: Vec<String> = found.into_iter().map(|pair| pair.name.to_string()).collect();
        found.sort();
        let (listed, mut stayed) = (found.len(), names.iter().enumerate().filter(|(at, _)| !places.contains(at)));
        found.dedup();
        assert_eq!(found.len(), listed, "a pair came twice");
        assert!(stayed.all(|(_, name)| found.binary_search(name).is_ok()), "missing: {gone:?} gone, {made} made");
    }
}
