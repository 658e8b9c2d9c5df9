//! Throttling, server faults and lost answers: a look is repeated while that may help, 30 s at most; a change is
//! repeated only while it is known not to have been done, and never sent once its time is up.

use std::sync::Arc;

use rekeyd::provider::{Blame, Effect, Kind};
use rekeyd::sim::Weather;

use crate::rig::{Rig, after};
use crate::scene::{Change, Read, Scene};
use crate::tap::Which;

const FOR_EVER: u32 = u32::MAX;

fn server_error(applied: bool, gateway: bool) -> Weather {
    Weather::ServerError { applied, gateway }
}

/// Every way in which an answer fails to come that leaves open whether the call was done.
fn open_ends() -> [Weather; 7] {
    [
        server_error(false, false),
        server_error(false, true),
        server_error(true, false),
        server_error(true, true),
        Weather::Lost { applied: false },
        Weather::Lost { applied: true },
        Weather::Late(std::time::Duration::from_secs(5)),
    ]
}

pub async fn a_throttled_look_is_repeated_until_it_goes_through(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    for read in Read::EACH {
        let expect = scene.read(read).await.unwrap();
        rig.tap.calm();
        rig.tap.strike(Which::Reads, 3, Weather::Throttled);
        let start = rig.now();
        assert_eq!(scene.read(read).await.unwrap(), expect, "{read:?}");
        assert!(rig.now() > start && rig.now() <= after(start, 30_000), "{read:?}: {start} {}", rig.now());
        assert!(rig.tap.sent().len() >= 4, "{read:?}");
    }
}

pub async fn a_look_without_an_answer_is_repeated_until_it_goes_through(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    for read in Read::EACH {
        let expect = scene.read(read).await.unwrap();
        for weather in open_ends() {
            rig.tap.calm();
            rig.tap.strike(Which::Reads, 2, weather.clone());
            assert_eq!(scene.read(read).await.unwrap(), expect, "{read:?} {weather:?}");
            assert!(rig.tap.sent().len() >= 3, "{read:?} {weather:?}");
        }
    }
}

pub async fn a_look_is_given_up_after_thirty_seconds(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    for read in Read::EACH {
        for (weather, kind) in [
            (Weather::Throttled, Kind::Throttled),
            (server_error(false, true), Kind::Unavailable),
            (Weather::Lost { applied: false }, Kind::Unavailable),
        ] {
            rig.tap.calm();
            rig.tap.strike(Which::All, FOR_EVER, weather.clone());
            let start = rig.now();
            let error = rig.error(scene.read(read).await);
            assert_eq!((error.kind, error.blame), (kind, Blame::Request), "{read:?} {weather:?}: {error:?}");
            assert!(rig.now() <= after(start, 30_000), "{read:?} {weather:?}: {start} {}", rig.now());
            let calls = rig.tap.sent().len();
            assert!((4..200).contains(&calls), "{read:?} {weather:?}: {calls} calls");
        }
    }
}

pub async fn a_throttled_change_is_repeated_until_it_goes_through(rig: Arc<Rig>) {
    for change in Change::EACH {
        let scene = Scene::new(&rig);
        rig.tap.calm();
        rig.tap.strike(Which::Changes, 3, Weather::Throttled);
        scene.change(change, rig.before()).await.unwrap();
        assert_eq!(rig.tap.changes(), 4, "{change:?}");
        rig.settle();
    }
}

pub async fn a_throttled_change_is_given_up_at_its_before(rig: Arc<Rig>) {
    for change in Change::EACH {
        for leave in [1, 700, 3_000, 600_000] {
            let scene = Scene::new(&rig);
            rig.settle();
            rig.tap.calm();
            rig.tap.strike(Which::Changes, FOR_EVER, Weather::Throttled);
            let (start, before) = (rig.now(), after(rig.now(), leave));
            let error = rig.not_done(scene.change(change, before).await);
            assert_eq!((error.kind, error.blame), (Kind::Throttled, Blame::Request), "{change:?}: {error:?}");
            let sent = rig.tap.sent();
            assert!(sent.iter().all(|sent| !sent.change || sent.at < before), "{change:?}: {before} {sent:?}");
            assert!(rig.tap.changes() >= 1, "{change:?}: its time had begun");
            assert!(rig.now() <= before.min(after(start, 30_000)), "{change:?}: {start} {}", rig.now());
        }
    }
}

pub async fn a_change_whose_time_is_up_is_never_sent(rig: Arc<Rig>) {
    for change in Change::EACH {
        let scene = Scene::new(&rig);
        rig.tap.calm();
        for before in [rig.now(), "2026-11-22T02:00:00Z".parse().unwrap()] {
            let error = rig.not_done(scene.change(change, before).await);
            assert_eq!((error.kind, rig.tap.changes()), (Kind::Throttled, 0), "{change:?}: {error:?}");
        }
    }
}

pub async fn a_change_of_unknown_outcome_is_sent_once_and_says_so(rig: Arc<Rig>) {
    for change in Change::EACH {
        for weather in open_ends() {
            let scene = Scene::new(&rig);
            rig.tap.calm();
            rig.tap.strike(Which::Changes, FOR_EVER, weather.clone());
            let error = rig.error(scene.change(change, rig.before()).await);
            assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown), "{change:?}: {error:?}");
            assert_eq!(rig.tap.changes(), 1, "{change:?} {weather:?}");
            assert_eq!(error.blame, Blame::Request, "{change:?}: {error:?}");
            rig.settle();
        }
    }
}

pub async fn what_a_change_of_unknown_outcome_did_is_found_by_looking(rig: Arc<Rig>) {
    for applied in [false, true] {
        let (name, key) = (rig.name(), rig.public_key());
        rig.tap.strike(Which::Changes, 1, Weather::Lost { applied });
        rig.error(rig.provider.import_key_pair(&name, &key, rig.before()).await);
        let found = rig.provider.find_key_pair(&name).await.unwrap();
        assert_eq!(found.is_some_and(|pair| pair.public_key == Some(key)), applied);
    }
}

pub async fn an_answer_that_takes_long_is_waited_for(rig: Arc<Rig>) {
    for change in Change::EACH {
        let scene = Scene::new(&rig);
        rig.tap.calm();
        rig.tap.strike(Which::Changes, 1, Weather::Delayed(std::time::Duration::from_secs(15)));
        scene.change(change, rig.before()).await.unwrap();
        assert_eq!(rig.tap.changes(), 1, "{change:?}");
        rig.settle();
    }
}
