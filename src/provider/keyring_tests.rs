//! Tests of the keyring: when others are fetched, by whom, and what is in force meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::*;
use crate::model::ProviderKind;
use crate::net::{Request, Response, TransportError};
use crate::provider::http::door::tests::ManualClock;

fn keys(id: &str) -> Credentials {
    Credentials { access_key_id: id.to_string(), access_key_secret: "the-secret".into(), session_token: None }
}

/// A metadata service: each answer after a moment, the n-th with the id `AKn`, until the told time; or none, perhaps not even
/// an end.
#[derive(Default)]
struct Service {
    asked: AtomicUsize,
    hangs: AtomicBool,
    /// Questions that somebody still waits for.
    open: Arc<()>,
    expires: Mutex<Option<String>>,
}

#[async_trait]
impl Transport for Service {
    async fn send(&self, _: &Request) -> Result<Response, TransportError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _open = Arc::clone(&self.open);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        // Others get their turn meanwhile.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let Some(expires) = self.expires.lock().unwrap().clone() else {
            return Err(TransportError::NoAnswer("timed out".to_string()));
        };
        let expires = expires.parse::<Timestamp>().unwrap().as_second();
        let body = format!(
            r#"{{"Code":"Success","TmpSecretId":"AK{number}","TmpSecretKey":"the-secret","Token":"the-token","ExpiredTime":{expires}}}"#
        );
        Ok(Response { status: 200, headers: Vec::new(), body: body.into_bytes() })
    }
}

struct Scene {
    service: Arc<Service>,
    clock: Arc<ManualClock>,
    keyring: Keyring,
}

impl Scene {
    fn new() -> Self {
        let service = Arc::new(Service::default());
        let clock = ManualClock::at("2026-11-22T00:00:00Z");
        let role = Role::new(ProviderKind::TencentCvm, Some("Ops".to_string()), None).unwrap();
        let keyring = Keyring::role(role, service.clone(), clock.clone());
        Self { service, clock, keyring }
    }

    fn asked(&self) -> usize {
        self.service.asked.load(Ordering::SeqCst)
    }

    fn until(&self, expires: Option<&str>) {
        *self.service.expires.lock().unwrap() = expires.map(str::to_string);
    }

    /// At this time: whom eight at once sign as, and how often the service was asked until then.
    async fn check(&self, at: &str, expect: Result<&str, &str>, asked: usize) {
        self.clock.set(&format!("2026-11-22T{at}Z"));
        let answers = futures_util::future::join_all((0..8).map(|_| self.keyring.credentials())).await;
        for answer in answers {
            match (answer, expect) {
                (Ok(given), Ok(id)) => assert_eq!(given.access_key_id, id, "{at}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{at}: {why}"),
                (answer, _) => panic!("{at}: {answer:?}"),
            }
        }
        others_have_their_turn().await;
        assert_eq!(self.asked(), asked, "{at}");
    }
}

async fn others_have_their_turn() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_role_is_asked_once_by_all_and_again_five_minutes_before_it_expires() {
    let scene = Scene::new();
    assert_eq!(scene.keyring.ready(), Ok(()));
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:00:00", Ok("AK1"), 1).await;
    scene.check("05:54:59", Ok("AK1"), 1).await;
    // Others are fetched behind their backs: the older ones are valid, and nobody waits.
    scene.until(Some("2026-11-22T12:00:00Z"));
    scene.check("05:55:00", Ok("AK1"), 2).await;
    scene.check("05:55:00", Ok("AK2"), 2).await;
    let clean = scene.keyring.redactor().message("AK1, AK2 and the-secret");
    assert!(clean.starts_with("[secret], [secret]"), "those before are known too: {clean}");
}

#[tokio::test]
async fn older_ones_are_in_force_until_they_expire_and_nothing_is_signed_afterwards() {
    let scene = Scene::new();
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:00:00", Ok("AK1"), 1).await;
    scene.until(None);
    scene.check("05:56:00", Ok("AK1"), 2).await;
    // Not again at once, and not by everybody.
    scene.check("05:56:29", Ok("AK1"), 2).await;
    scene.check("05:56:30", Ok("AK1"), 3).await;
    assert_eq!(scene.keyring.ready(), Ok(()));
    // Ten seconds may pass on the way.
    scene.check("05:59:50", Err("timed out"), 4).await;
    scene.check("05:59:52", Err("timed out"), 4).await;
    // Who waits for them is told at once, and the service is asked behind its back.
    scene.until(Some("2026-11-22T12:00:00Z"));
    scene.clock.set("2026-11-22T06:10:00Z");
    assert!(scene.keyring.ready().unwrap_err().contains("timed out"));
    assert!(scene.keyring.ready().unwrap_err().contains("timed out"));
    others_have_their_turn().await;
    assert_eq!(scene.keyring.ready(), Ok(()));
    scene.check("06:10:00", Ok("AK5"), 5).await;
    // A service that gives what has expired gives nothing.
    scene.check("11:59:55", Err("expired at 2026-11-22T12:00:00Z and it gave no others"), 6).await;
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_with_valid_credentials_waits_for_a_service_that_hangs() {
    let scene = Scene::new();
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:00:00", Ok("AK1"), 1).await;
    scene.service.hangs.store(true, Ordering::SeqCst);
    let patience = std::time::Duration::from_secs(5);
    for at in ["05:55:00", "05:56:00", "05:59:00"] {
        // One question for all of them, however long it takes.
        tokio::time::timeout(patience, scene.check(at, Ok("AK1"), 2)).await.unwrap();
    }
    assert_eq!(Arc::strong_count(&scene.service.open), 2, "it is being asked");
    drop(scene.keyring);
    others_have_their_turn().await;
    assert_eq!(Arc::strong_count(&scene.service.open), 1, "nobody asks for a keyring that is gone");
}

#[tokio::test]
async fn of_many_who_are_denied_at_once_one_asks_the_role_for_all() {
    for answers in [true, false] {
        let scene = Scene::new();
        scene.until(Some("2026-11-22T06:00:00Z"));
        scene.check("00:00:00", Ok("AK1"), 1).await;
        let held = scene.keyring.at_hand().unwrap();
        scene.clock.set("2026-11-22T00:01:00Z");
        scene.until(answers.then_some("2026-11-22T06:00:00Z"));
        let others = futures_util::future::join_all((0..8).map(|_| scene.keyring.has_others(&held))).await;
        assert_eq!((others, scene.asked()), (vec![answers; 8], 2));
    }
}

#[tokio::test]
async fn what_the_cloud_denies_while_the_role_is_silent_is_in_force_no_more_until_the_role_answers() {
    let scene = Scene::new();
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:00:00", Ok("AK1"), 1).await;
    let held = scene.keyring.at_hand().unwrap();
    assert_eq!(scene.keyring.denied(&held, "AuthFailure"), None, "the role gave them and has not failed since");
    scene.until(None);
    scene.clock.set("2026-11-22T00:01:00Z");
    assert!(!scene.keyring.has_others(&held).await);
    let why = scene.keyring.denied(&held, "AuthFailure").unwrap();
    assert!(why.contains("timed out") && why.ends_with("denied by the cloud (AuthFailure)"), "{why}");
    assert_eq!(scene.keyring.ready(), Err(why.clone()));
    scene.check("00:01:01", Err(&why), 2).await;
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:01:03", Ok("AK3"), 3).await;
    assert_eq!(scene.keyring.ready(), Ok(()));
}

#[tokio::test]
async fn after_a_denial_a_role_is_asked_for_others_but_not_for_every_denial() {
    let scene = Scene::new();
    scene.until(Some("2026-11-22T06:00:00Z"));
    scene.check("00:00:00", Ok("AK1"), 1).await;
    let (first, asked) = (keys("AK1"), || scene.asked());
    let held = scene.keyring.at_hand().unwrap();
    assert!(!scene.keyring.has_others(&held).await && asked() == 1, "they are a second old");
    assert!(scene.keyring.has_others(&first).await && asked() == 1, "it was signed with others than are held");
    scene.clock.set("2026-11-22T00:01:00Z");
    assert!(scene.keyring.has_others(&held).await && asked() == 2);
    assert!(Keyring::from(keys("AK1")).at_hand().is_some() && !Keyring::from(keys("AK1")).may_change());
}

#[tokio::test]
async fn what_is_read_is_read_at_each_signing_and_a_failed_reading_leaves_the_older_ones() {
    let place = Arc::new(Mutex::new(Err("no such file".to_string())));
    let from = place.clone();
    let keyring = Keyring::read(
        "file /a".to_string(),
        Arc::new(move || from.lock().unwrap().as_ref().map(|id: &String| keys(id)).map_err(String::clone)),
    );
    let is_now = async |expect: Result<&str, &str>| {
        let read = keyring.credentials().await.map(|read| read.access_key_id.clone());
        assert_eq!(read.as_deref(), expect.map_err(|why| why.to_string()).as_ref().map(|id| *id));
    };
    let put = |to: Result<&str, &str>| *place.lock().unwrap() = to.map(str::to_string).map_err(str::to_string);
    is_now(Err("no such file")).await;
    assert_eq!(keyring.ready(), Err("no such file".to_string()));
    put(Ok("AK1"));
    is_now(Ok("AK1")).await;
    put(Ok("AK2"));
    is_now(Ok("AK2")).await;
    assert!(keyring.has_others(&keys("AK1")).await && !keyring.has_others(&keys("AK2")).await);
    put(Err("is empty"));
    is_now(Ok("AK2")).await;
    put(Ok("half a"));
    is_now(Ok("AK2")).await;
    assert_eq!(keyring.ready(), Ok(()));
    put(Ok("AK3"));
    is_now(Ok("AK3")).await;
    assert_eq!(keyring.at_hand().unwrap().access_key_secret.expose_secret(), "the-secret");
    assert_eq!(format!("{keyring:?}"), "Keyring(read anew)");
}

#[tokio::test]
async fn what_the_cloud_denies_while_nothing_can_be_read_is_in_force_no_more_until_something_can() {
    let place = Arc::new(Mutex::new(Ok("AK1".to_string())));
    let from = place.clone();
    let keyring = Keyring::read(
        "file /a".to_string(),
        Arc::new(move || from.lock().unwrap().as_ref().map(|id: &String| keys(id)).map_err(String::clone)),
    );
    let put = |to: Result<&str, &str>| *place.lock().unwrap() = to.map(str::to_string).map_err(str::to_string);
    let held = keyring.credentials().await.unwrap();
    assert_eq!(keyring.denied(&held, "AuthFailure"), None, "there are these and no others: the cloud is right");
    put(Err("file /a is gone"));
    // Somebody else's denial, of what was replaced since, says nothing of these.
    assert!(keyring.credentials().await.is_ok());
    assert_eq!((keyring.denied(&keys("AK0"), "AuthFailure"), keyring.ready()), (None, Ok(())));
    let why = "file /a is gone; those from before are denied by the cloud (AuthFailure)".to_string();
    assert_eq!(keyring.denied(&held, "AuthFailure"), Some(why.clone()));
    assert_eq!(keyring.credentials().await.map(drop), Err(why.clone()));
    assert_eq!(keyring.ready(), Err(why));
    // The same ones, read again: whether they are good now the cloud says.
    put(Ok("AK1"));
    assert_eq!((keyring.ready(), keyring.denied(&held, "AuthFailure")), (Ok(()), None));
    put(Err("is empty"));
    assert!(keyring.credentials().await.is_ok());
}

#[test]
fn keyrings_are_the_same_where_their_credentials_come_from_the_same_place() {
    let read = |name: &str| Keyring::read(name.to_string(), Arc::new(|| Ok(keys("AK"))));
    let role = |kind, name: &str| {
        let role = Role::new(kind, Some(name.to_string()), None).unwrap();
        Keyring::role(role, Arc::new(Service::default()), ManualClock::at("2026-11-22T00:00:00Z"))
    };
    let check =
        |one: Keyring, other: Keyring, expect: bool| assert_eq!(one.is_same(&other), expect, "{one:?} {other:?}");
    check(keys("A").into(), keys("A").into(), true);
    check(keys("A").into(), keys("B").into(), false);
    check(read("file /a"), read("file /a"), true);
    check(read("file /a"), read("file /b"), false);
    check(role(ProviderKind::TencentCvm, "a"), role(ProviderKind::TencentLighthouse, "a"), true);
    check(role(ProviderKind::TencentCvm, "a"), role(ProviderKind::TencentCvm, "b"), false);
    check(role(ProviderKind::TencentCvm, "a"), role(ProviderKind::AlibabaEcs, "a"), false);
    check(role(ProviderKind::TencentCvm, "a"), read("a"), false);
}
