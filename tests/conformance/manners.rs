//! How a client behaves: its credentials, its clock, its haste, and what it lets slip in an error.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::SignedDuration;
use rekeyd::model::ProviderKind;
use rekeyd::net::Response;
use rekeyd::provider::{Blame, Effect, Error, Kind, Limits, Select, limits};
use rekeyd::sim::{Rule, Weather};

use crate::rig::{Rig, after};
use crate::scene::{Change, Read, Scene};
use crate::tap::Which;

fn denied(error: Error) {
    assert_eq!((error.kind, error.blame), (Kind::Denied, Blame::Account), "{error:?}");
}

/// Whether the cloud refused with its one code for a replay and for a clock that is off: only the legacy endpoint's flat
/// shape has such a one (FACTS, section 6).
fn is_replay(rig: &Rig, error: &Error) -> bool {
    rig.is_legacy() && error.code == "4500"
}

/// A refusal for the clock. One that may mean a replay leaves open whether a copy of the request came before and was done.
fn out_of_time<T: Debug>(rig: &Rig, result: Result<T, Error>) {
    let error = rig.error(result);
    if is_replay(rig, &error) {
        let verdict = (error.kind, error.effect, error.blame);
        assert_eq!(verdict, (Kind::Unavailable, Effect::Unknown, Blame::Request), "{error:?}");
    } else {
        denied(rig.not_done::<()>(Err(error)));
    }
}

pub async fn the_limits_answer_every_question(rig: Arc<Rig>) {
    let limits: &Limits = rig.provider.limits();
    assert_eq!(limits.provider, rig.kind);
    assert_eq!(format!("{limits:?}"), format!("{:?}", self::limits(rig.kind)));
    // The pages' numbers (FACTS, section 1 and 2.2, 4.1, 5.1).
    let expect = match rig.kind {
        ProviderKind::TencentLighthouse => (100, 100, 10, 25),
        ProviderKind::TencentCvm => (100, 100, 100, 25),
        ProviderKind::AlibabaEcs => (50, 100, 100, 128),
        ProviderKind::BaiduBcc => (100, 100, 1, 65),
    };
    assert_eq!((limits.bind_max, limits.power_max, limits.delete_max, limits.key_name_max), expect);
    // ECS answers for each instance; Baidu's pages know refusals of the whole call, only its SDK a list of the failed.
    assert_eq!(limits.whole_batch_fails, rig.kind != ProviderKind::AlibabaEcs);
    assert!(limits.key_bits.contains(&2048) && limits.key_bits.contains(&4096), "{:?}", limits.key_bits);
    assert!(limits.page_max >= 50 && !limits.downtime.is_zero());
}

pub async fn a_wrong_secret_is_denied_and_nothing_is_done(rig: Arc<Rig>) {
    rig.expects(Rule::Signature);
    let strangers = [
        rig.client(|credentials| credentials.access_key_secret = "an-entirely-wrong-secret-0123".into()),
        rig.client(|credentials| credentials.access_key_id = "AKIDnobodyknowsthisaccesskeyid01".to_string()),
    ];
    for client in strangers {
        let scene = Scene::new(&rig).seen_by(client);
        for read in Read::EACH {
            denied(rig.not_done(scene.read(read).await));
        }
        for change in Change::EACH {
            denied(rig.not_done(scene.change(change, rig.before()).await));
        }
    }
}

pub async fn a_clock_that_is_off_by_an_hour_is_denied(rig: Arc<Rig>) {
    rig.expects(Rule::Clock);
    let scene = Scene::new(&rig);
    rig.with(|world| world.cloud_mut(0).skew = SignedDuration::from_hours(1));
    out_of_time(&rig, scene.read(Read::All).await);
    for change in Change::EACH {
        out_of_time(&rig, scene.change(change, rig.before()).await);
    }
    let difference = rig.provider.clock_difference().expect("an answer came");
    assert!((difference + SignedDuration::from_hours(1)).abs() <= SignedDuration::from_secs(1), "{difference:?}");
    // Baidu's pages say nothing of a clock that is ahead of theirs (FACTS 5.2).
    if rig.kind != ProviderKind::BaiduBcc {
        rig.with(|world| world.cloud_mut(0).skew = SignedDuration::from_hours(-1));
        out_of_time(&rig, scene.read(Read::All).await);
        out_of_time(&rig, scene.change(Change::Bind, rig.before()).await);
    }
}

pub async fn a_request_that_expired_on_its_way_is_signed_anew_and_sent_once_more(rig: Arc<Rig>) {
    rig.expects(Rule::Clock);
    let scene = Scene::new(&rig);
    // The first so many requests come an hour late; the cloud's clock stands well.
    let late = |times: u32| {
        rig.tap.calm();
        let mut left = times;
        rig.tap.hook(Box::new(move |_, world| {
            let hours = if left > 0 { 1 } else { 0 };
            left = left.saturating_sub(1);
            world.cloud_mut(0).skew = SignedDuration::from_hours(hours);
            None
        }));
    };
    for read in Read::EACH {
        late(1);
        scene.read(read).await.unwrap();
    }
    for change in Change::EACH {
        let scene = Scene::new(&rig);
        late(2);
        let result = scene.change(change, rig.before()).await;
        let open = result.as_ref().is_err_and(|error| is_replay(&rig, error));
        out_of_time(&rig, result);
        let sent = rig.tap.changes();
        assert!(sent == 2 || open && sent == 1, "{change:?}: once more, and no oftener: {sent}");
        late(1);
        match scene.change(change, rig.before()).await {
            Ok(()) => assert_eq!(rig.tap.changes(), 2, "{change:?}"),
            // What may have been done is not sent again.
            Err(error) => assert!(is_replay(&rig, &error) && rig.tap.changes() == 1, "{change:?}: {error:?}"),
        }
        rig.tap.calm();
        rig.settle();
    }
}

pub async fn the_difference_of_the_clocks_is_that_of_the_newest_answer(rig: Arc<Rig>) {
    assert_eq!(rig.provider.clock_difference(), None);
    for ahead in [0, 90, -90, 30] {
        rig.with(|world| world.cloud_mut(0).skew = SignedDuration::from_secs(ahead));
        rig.wait(700);
        rig.provider.find_key_pair(&"rksim_none".into()).await.unwrap();
        let difference = rig.provider.clock_difference().expect("an answer came");
        let off = (difference + SignedDuration::from_secs(ahead)).abs();
        assert!(off <= SignedDuration::from_secs(1), "{ahead} s ahead: {difference:?}");
    }
}

pub async fn an_answer_without_a_date_leaves_the_difference_as_it_was(rig: Arc<Rig>) {
    rig.with(|world| world.cloud_mut(0).skew = SignedDuration::from_secs(90));
    rig.provider.find_key_pair(&"rksim_none".into()).await.unwrap();
    let known = rig.provider.clock_difference();
    assert!(known.is_some());
    for date in [None, Some("yesterday"), Some("")] {
        rig.tap.hook(Box::new(move |_, _| {
            let headers = date.map(|date| ("date".to_string(), date.to_string())).into_iter().collect();
            Some(Ok(Response { status: 200, headers, body: b"null".to_vec() }))
        }));
        rig.error(rig.provider.find_key_pair(&"rksim_none".into()).await);
        assert_eq!(rig.provider.clock_difference(), known, "{date:?}");
    }
}

pub async fn a_session_token_goes_with_every_call_where_there_is_one(rig: Arc<Rig>) {
    rig.expects(Rule::Signature);
    rig.with(|world| world.cloud_mut(0).session_token = Some("a-session-token-of-many-letters".to_string()));
    let holder = rig.client(|credentials| credentials.session_token = Some("a-session-token-of-many-letters".into()));
    let scene = Scene::new(&rig).seen_by(holder.clone());
    for read in Read::EACH {
        scene.read(read).await.unwrap();
    }
    assert_eq!(rig.misdeeds(), Vec::<String>::new());
    for change in Change::EACH {
        Scene::new(&rig).seen_by(holder.clone()).change(change, rig.before()).await.unwrap();
        rig.settle();
    }
    let wrong = rig.client(|credentials| credentials.session_token = Some("another-token-of-many-letters".into()));
    for client in [rig.provider.clone(), wrong] {
        let scene = Scene::new(&rig).seen_by(client);
        denied(rig.not_done(scene.read(Read::Find).await));
        denied(rig.not_done(scene.change(Change::Bind, rig.before()).await));
    }
}

pub async fn fifty_calls_in_a_row_keep_to_the_documented_rates(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    for read in [Read::Find, Read::All, Read::BoundTo] {
        for _ in 0..50 {
            scene.read(read).await.unwrap();
        }
    }
    for change in [Change::Import, Change::Bind, Change::Reboot] {
        for number in 0..50 {
            let scene = Scene::new(&rig);
            let start = rig.now();
            scene.change(change, rig.before()).await.unwrap();
            assert!(rig.now() < after(start, 5_000), "{change:?} number {number} waited from {start} to {}", rig.now());
        }
    }
    let slowest = rig.provider.limits().requests_per_second.iter().map(|(_, rate)| *rate).min();
    // 50 imports at 10 a second take 4.9 seconds.
    let passed = rig.now().duration_since("2026-11-22T03:00:00Z".parse().unwrap());
    assert!(slowest.is_none_or(|_| passed > SignedDuration::from_secs(9)), "{passed:?}");
}

pub async fn looks_side_by_side_keep_to_the_documented_rates(rig: Arc<Rig>) {
    rig.pair("rksim_pair");
    let mut looks = Vec::new();
    for _ in 0..60 {
        let provider = rig.provider.clone();
        looks.push(tokio::spawn(async move { provider.find_key_pair(&"rksim_pair".into()).await.is_ok() }));
    }
    for look in looks {
        assert!(look.await.unwrap());
    }
}

/// What the clouds call a look for a pair, and an import (Baidu: the SDK's words).
fn action_names(rig: &Rig) -> (&'static str, &'static str) {
    match rig.kind {
        ProviderKind::BaiduBcc => ("ListKeypairs", "ImportKeypair"),
        _ => ("DescribeKeyPairs", "ImportKeyPair"),
    }
}

pub async fn a_rate_of_the_operators_own_is_kept(rig: Arc<Rig>) {
    let client = rig.client_at(action_names(&rig).0, 1);
    let start = rig.now();
    for _ in 0..5 {
        client.find_key_pair(&"rksim_none".into()).await.unwrap();
    }
    assert!(rig.now() >= after(start, 4_000), "{start} {}", rig.now());
}

pub async fn a_change_whose_turn_comes_after_its_before_is_not_sent(rig: Arc<Rig>) {
    let client = rig.client_at(action_names(&rig).1, 1);
    client.import_key_pair(&rig.name(), &rig.public_key(), rig.before()).await.unwrap();
    let (start, before) = (rig.now(), after(rig.now(), 500));
    let error = rig.not_done(client.import_key_pair(&rig.name(), &rig.public_key(), before).await);
    assert_eq!((error.kind, error.blame), (Kind::Throttled, Blame::Request), "{error:?}");
    assert_eq!((rig.tap.changes(), rig.now() <= before), (1, true), "{start} {}", rig.now());
    client.import_key_pair(&rig.name(), &rig.public_key(), after(start, 1_500)).await.unwrap();
}

pub async fn an_answer_that_repeats_the_request_brings_no_secret_into_the_error(rig: Arc<Rig>) {
    // Long ones, that look like secrets, and short ones, that are known to be.
    let own = rig.with(|world| world.cloud(0).access_key_secret.clone());
    for (secret, token) in [(own.as_str(), "a-session-token-of-many-letters"), ("pw-7x9", "tk.5z1")] {
        repeats(&rig, secret, token).await;
    }
}

async fn repeats(rig: &Rig, secret: &str, token: &str) {
    let client = rig.client(|credentials| {
        credentials.access_key_secret = secret.into();
        credentials.session_token = Some(token.into());
    });
    let scene = Scene::new(rig).seen_by(client);
    for status in [200, 403, 500] {
        for shape in 0..4 {
            let secret = secret.to_string();
            rig.tap.calm();
            rig.tap.hook(Box::new(move |request, _| {
                let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}"));
                let all = headers.collect::<Vec<_>>().join("; ") + "; the secret is " + &secret;
                let all = format!("{all}; {}; {}", request.query, String::from_utf8_lossy(&request.body));
                let (code, id) = ("SignatureDoesNotMatch", all.clone());
                let body = match shape {
                    0 => format!("<html>{all}</html>").into_bytes(),
                    // Each cloud reads its own of these.
                    1 => serde_json::json!({
                        "Code": code, "Message": all, "RequestId": id, "code": code, "message": all, "requestId": id,
                        "Response": {"Error": {"Code": "AuthFailure.SignatureFailure", "Message": all}, "RequestId": id},
                    })
                    .to_string()
                    .into_bytes(),
                    2 => serde_json::json!({ "code": 4100, "message": all, "codeDesc": all }).to_string().into_bytes(),
                    _ => serde_json::json!({
                        "Code": all, "Message": "", "RequestId": "", "code": all, "message": "", "requestId": "",
                        "Response": {"Error": {"Code": all, "Message": ""}, "RequestId": ""},
                    })
                    .to_string()
                    .into_bytes(),
                };
                Some(Ok(Response { status, headers: Vec::new(), body }))
            }));
            for read in [Read::Find, Read::All] {
                rig.error(scene.read(read).await);
            }
            for change in [Change::Import, Change::Bind, Change::Stop] {
                let result = scene.change(change, rig.before()).await;
                if result.is_err() {
                    rig.error(result);
                }
            }
        }
    }
}

pub async fn looks_change_nothing(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    rig.settle();
    let state = |rig: &Rig| {
        rig.with(|world| {
            let machines = world.cloud(0).machines().iter();
            let machines: Vec<_> = machines.map(|m| (m.id.clone(), m.power, m.record_keys.clone(), m.boots)).collect();
            let pairs: Vec<_> = world.cloud(0).key_pairs().iter().map(|pair| pair.id.clone()).collect();
            format!("{machines:?} {pairs:?}")
        })
    };
    let before = state(&rig);
    for read in Read::EACH {
        scene.read(read).await.unwrap();
    }
    rig.provider.instances(&Select::Ids(Vec::new())).await.unwrap();
    rig.settle();
    assert_eq!((state(&rig), rig.tap.changes()), (before, 0));
}

pub async fn every_attempt_is_signed_anew(rig: Arc<Rig>) {
    let scene = Scene::new(&rig);
    rig.tap.strike(Which::All, 4, Weather::Throttled);
    // A repetition 20 s later with the first attempt's nonce or time would be told from the cloud's rules.
    scene.read(Read::All).await.unwrap();
    rig.tap.strike(Which::Changes, 4, Weather::Throttled);
    scene.change(Change::Bind, rig.before()).await.unwrap();
    let mut signatures = rig.tap.signatures();
    let count = signatures.len();
    signatures.sort();
    signatures.dedup();
    // Only ECS and CVM's legacy endpoint have nonces: elsewhere two attempts within one second may be alike.
    let nonces = rig.kind == ProviderKind::AlibabaEcs || rig.is_legacy();
    let alike = !nonces && signatures.len() > count / 2;
    assert!(signatures.len() == count || alike, "{signatures:?}");
}
