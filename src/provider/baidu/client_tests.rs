//! Literal requests and literal answers of BCC, through a scripted transport; no network.

use std::sync::Arc;

use super::*;
use crate::net::Origin;
use crate::provider::Credentials;
use crate::provider::http::door::tests::{ManualClock, Script, answer};
use crate::provider::http::{Door, Transport, TransportError};
use crate::provider::{Blame, Effect, Power};

const NOW: &str = "2026-11-22T00:00:00Z";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRt5fUrGTvf1m8NgBbQ6BBAjSLiQbbcyYFhPzhB6YAF";

type Answer = std::result::Result<Response, TransportError>;

fn client_with(script: &Arc<Script>, token: Option<&str>) -> Bcc {
    let credentials = Credentials {
        access_key_id: "ALTAKfake0001".to_string(),
        access_key_secret: "the-secret".into(),
        session_token: token.map(Into::into),
    };
    let transport: Arc<dyn Transport> = script.clone();
    let door = Door::new(transport, ManualClock::at(NOW), &BTreeMap::new(), credentials.into(), 7);
    let origin = Origin::parse("https://bcc.bj.baidubce.com").unwrap();
    Bcc::new(Parts { origin, region: "bj".into(), door })
}

fn client(script: &Arc<Script>) -> Bcc {
    client_with(script, None)
}

fn ok(body: &str) -> Answer {
    answer(200, &[], body)
}

fn before() -> Timestamp {
    "2026-11-22T00:00:20Z".parse().unwrap()
}

fn ids(list: &[&str]) -> Vec<InstanceId> {
    list.iter().map(|id| InstanceId::from(*id)).collect()
}

/// Each request that was sent: `METHOD path?query body`.
fn asked(script: &Script) -> Vec<String> {
    let requests = script.asked.lock().unwrap();
    let line = |request: &Request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        format!("{} {}{query} {body}", request.method, request.path).trim_end().to_string()
    };
    requests.iter().map(line).collect()
}

fn instance(id: &str, fields: &str) -> String {
    format!(r#"{{"id":"{id}","status":"Running"{fields}}}"#)
}

fn page(instances: &[String], next: Option<&str>) -> Answer {
    let next = next
        .map_or(r#""isTruncated":false"#.to_string(), |next| format!(r#""isTruncated":true,"nextMarker":"{next}""#));
    ok(&format!(r#"{{"marker":"","maxKeys":1000,{next},"instances":[{}]}}"#, instances.join(",")))
}

fn tagged(id: &str, value: &str) -> String {
    instance(id, &format!(r#","tags":[{{"tagKey":"role","tagValue":"{value}"}}]"#))
}

fn found(instances: Result<Vec<Instance>>) -> Vec<String> {
    instances.unwrap().into_iter().map(|instance| instance.id.to_string()).collect()
}

fn signed_again(request: &Request, covered: &[&str]) -> String {
    let parts =
        sign::Parts { method: request.method, path: &request.path, query: &request.query, headers: &request.headers };
    let at = NOW.parse().unwrap();
    sign::sign("ALTAKfake0001", "the-secret", at, 1800, parts, covered).authorization
}

#[tokio::test]
async fn a_request_carries_its_body_as_json_and_signs_host_and_date() {
    let script = Script::of([ok("")]);
    client(&script).bind(&"k-1/x".into(), &ids(&["i-1", "i-2"]), before()).await.unwrap();
    let request = script.asked.lock().unwrap().remove(0);
    assert_eq!(request.origin, "https://bcc.bj.baidubce.com");
    assert_eq!(
        (request.method, request.path.as_str(), request.query.as_str()),
        ("PUT", "/v2/keypair/k-1%2Fx", "attach=")
    );
    assert_eq!(request.body, br#"{"instanceIds":["i-1","i-2"]}"#);
    let authorization = signed_again(&request, &["host", "x-bce-date"]);
    assert!(authorization.starts_with("bce-auth-v1/ALTAKfake0001/2026-11-22T00:00:00Z/1800/host;x-bce-date/"));
    let sent: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expect = [
        ("host", "bcc.bj.baidubce.com"),
        ("x-bce-date", NOW),
        ("content-type", "application/json"),
        ("authorization", authorization.as_str()),
    ];
    assert_eq!(sent, expect);
}

#[tokio::test]
async fn a_session_token_goes_with_the_request_and_a_look_has_no_body() {
    let script = Script::of([page(&[], None)]);
    found(client_with(&script, Some("a/token+=")).instances(&Select::All).await);
    let request = script.asked.lock().unwrap().remove(0);
    let sent: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let authorization = signed_again(&request, &["host", "x-bce-date", "x-bce-security-token"]);
    assert!(authorization.contains("/host;x-bce-date;x-bce-security-token/"));
    let expect = [
        ("host", "bcc.bj.baidubce.com"),
        ("x-bce-date", NOW),
        ("x-bce-security-token", "a/token+="),
        ("authorization", authorization.as_str()),
    ];
    assert_eq!(sent, expect);
}

#[tokio::test]
async fn tags_narrow_the_listing_and_are_matched_here() {
    let script = Script::of([
        page(&[tagged("i-2", "web front"), tagged("i-1", "web front"), tagged("i-3", "db")], Some("i-3")),
        page(&[tagged("i-1", "web front"), instance("i-4", "")], None),
    ]);
    let tags = [("role".to_string(), "web front".to_string())].into();
    assert_eq!(found(client(&script).instances(&Select::Tags(tags)).await), ["i-1", "i-2"]);
    assert_eq!(
        asked(&script),
        [
            "GET /v2/instance?tags=role%3Aweb%20front&maxKeys=1000",
            "GET /v2/instance?tags=role%3Aweb%20front&maxKeys=1000&marker=i-3",
        ]
    );
}

#[tokio::test]
async fn tags_that_the_filter_cannot_say_are_still_matched() {
    let script = Script::of([page(&[tagged("i-1", "a,b"), tagged("i-2", "a")], None)]);
    let tags = [("role".to_string(), "a,b".to_string())].into();
    assert_eq!(found(client(&script).instances(&Select::Tags(tags)).await), ["i-1"]);
    assert_eq!(asked(&script), ["GET /v2/instance?maxKeys=1000"]);
}

#[tokio::test]
async fn a_listing_that_names_no_next_page_or_the_same_again_is_rubbish() {
    let check = async |answers: Vec<Answer>| {
        let script = Script::of(answers);
        let error = client(&script).instances(&Select::All).await.unwrap_err();
        assert_eq!((error.kind, error.action.as_str()), (Kind::Protocol, "ListInstances"));
        script.is_played_out();
    };
    check(vec![page(&[], Some("m1")), page(&[], Some("m1"))]).await;
    check(vec![page(&[], Some("m1")), page(&[], Some("m2")), page(&[], Some("m1"))]).await;
    check(vec![page(&[], Some(""))]).await;
    check(vec![ok(r#"{"isTruncated":true,"instances":[]}"#)]).await;
}

#[tokio::test]
async fn ids_are_asked_for_by_the_hundred_and_each_once() {
    let all: Vec<InstanceId> = (0..150).map(|number| InstanceId::new(format!("i-{number:03}"))).collect();
    let twice = [&all[..], &all[..7]].concat();
    let answers = all.chunks(100).map(|chunk| {
        let known: Vec<String> = chunk.iter().skip(1).map(|id| instance(id.as_str(), "")).collect();
        page(&[known, vec![instance("i-stranger", "")]].concat(), None)
    });
    let script = Script::of(answers);
    let shown = found(client(&script).instances(&Select::Ids(twice)).await);
    assert_eq!(shown.len(), 148, "the first of each hundred is not known");
    script.is_played_out();
    let first = &asked(&script)[0];
    let start = r#"POST /v2/instance/listByInstanceId {"instanceIds":["i-000","i-001","#;
    assert!(first.starts_with(start), "{first}");
    assert_eq!(first.matches("i-").count(), 100);
    assert_eq!(found(client(&Script::of([])).instances(&Select::Ids(Vec::new())).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_look_is_halved_until_the_unknown_instance_stands_alone() {
    let refused = || answer(404, &[], r#"{"code":"Instance.InstanceNotExist","message":"no","requestId":"R"}"#);
    let script = Script::of([
        refused(),
        page(&[instance("i-1", "")], None),
        refused(),
        refused(),
        page(&[instance("i-3", "")], None),
    ]);
    assert_eq!(found(client(&script).instances(&Select::Ids(ids(&["i-1", "i-2", "i-3"]))).await), ["i-1", "i-3"]);
    script.is_played_out();
}

#[tokio::test]
async fn no_other_refusal_looks_like_the_death_of_an_instance() {
    for (status, body, kind) in [
        (404, r#"{"code":"InvalidVersion","message":"x","requestId":"R"}"#, Kind::Invalid),
        (404, r#"{"code":"NoSuchPath","message":"x","requestId":"R"}"#, Kind::NotFound),
        (403, r#"{"code":"AccessDenied","message":"x","requestId":"R"}"#, Kind::Denied),
        (404, "<html>not here</html>", Kind::Protocol),
        (200, "", Kind::Protocol),
        (200, "<html>please log in</html>", Kind::Protocol),
        (200, "{}", Kind::Protocol),
        (200, r#"{"instances":[{"id":"i-1""#, Kind::Protocol),
        (200, r#"{"instances":[{"id":1,"status":"Running"}],"isTruncated":false}"#, Kind::Protocol),
        (302, "", Kind::Protocol),
    ] {
        // Rubbish is asked for twice more, a refusal is not.
        let times = if kind == Kind::Protocol { 3 } else { 1 };
        let script = Script::of((0..times).map(|_| answer(status, &[], body)));
        let error = client(&script).instances(&Select::Ids(ids(&["i-1"]))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {body}");
        script.is_played_out();
    }
}

#[tokio::test]
async fn who_is_bound_is_asked_for_and_checked_here() {
    let bound = |id: &str, pair: &str| instance(id, &format!(r#","keypairId":"{pair}""#));
    let script = Script::of([page(&[bound("i-1", "k-1"), bound("i-2", "k-2"), bound("i-3", "")], None)]);
    let shown = client(&script).instances(&Select::BoundTo("k-1".into())).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].id.as_str(), shown[0].power, &shown[0].boot), ("i-1", Power::Running, &None));
    assert_eq!(asked(&script), ["GET /v2/instance?keypairId=k-1&maxKeys=1000"]);
}

#[tokio::test]
async fn a_filter_that_the_cloud_refuses_is_left_out_and_the_match_made_here() {
    let bound = |id: &str, pair: &str| instance(id, &format!(r#","keypairId":"{pair}""#));
    let refused = || answer(400, &[], r#"{"code":"InvalidHTTPRequest","message":"no such filter","requestId":"R"}"#);
    let script = Script::of([
        refused(),
        page(&[bound("i-1", "k-1"), bound("i-2", "k-2")], Some("i-3")),
        page(&[bound("i-3", "k-1")], None),
        refused(),
        page(&[tagged("i-1", "web"), tagged("i-2", "db")], None),
    ]);
    let client = client(&script);
    assert_eq!(found(client.instances(&Select::BoundTo("k-1".into())).await), ["i-1", "i-3"]);
    let tags = [("role".to_string(), "web".to_string())].into();
    assert_eq!(found(client.instances(&Select::Tags(tags)).await), ["i-1"]);
    assert_eq!(
        asked(&script),
        [
            "GET /v2/instance?keypairId=k-1&maxKeys=1000",
            "GET /v2/instance?maxKeys=1000",
            "GET /v2/instance?maxKeys=1000&marker=i-3",
            "GET /v2/instance?tags=role%3Aweb&maxKeys=1000",
            "GET /v2/instance?maxKeys=1000",
        ]
    );
    // What is refused without a filter, or for another reason, is refused.
    let denied = r#"{"code":"AccessDenied","message":"no","requestId":"R"}"#;
    for (select, reply, kind) in [
        (Select::All, refused(), Kind::Invalid),
        (Select::BoundTo("k-1".into()), answer(403, &[], denied), Kind::Denied),
    ] {
        let script = Script::of([reply]);
        assert_eq!(super::tests::client(&script).instances(&select).await.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn nobody_is_bound_to_a_pair_that_the_cloud_does_not_know_and_it_is_not_found() {
    let unknown = || answer(404, &[], r#"{"code":"Keypair.KeypairNotExist","message":"no","requestId":"R"}"#);
    let script = Script::of([unknown(), unknown()]);
    let client = client(&script);
    assert_eq!(found(client.instances(&Select::BoundTo("k-1".into())).await), Vec::<String>::new());
    assert_eq!(client.find_key_pair(&"rkm_1".into()).await, Ok(None));
}

fn pairs_page(pairs: &[(&str, &str)], next: Option<&str>) -> Answer {
    let next = next
        .map_or(r#""isTruncated":false"#.to_string(), |next| format!(r#""isTruncated":true,"nextMarker":"{next}""#));
    let pair = |(id, name): &(&str, &str)| {
        format!(r#"{{"keypairId":"{id}","name":"{name}","publicKey":"{KEY} bj","instanceCount":2}}"#)
    };
    let pairs: Vec<String> = pairs.iter().map(pair).collect();
    ok(&format!(r#"{{{next},"keypairs":[{}]}}"#, pairs.join(",")))
}

#[tokio::test]
async fn a_key_pair_is_found_by_its_exact_name_though_the_filter_be_ignored() {
    let script = Script::of([
        pairs_page(&[("k-0", "other"), ("k-9", "rkm_10")], Some("k-9")),
        pairs_page(&[("k-1", "rkm_1")], None),
        pairs_page(&[], None),
    ]);
    let client = client(&script);
    let pair = client.find_key_pair(&"rkm_1".into()).await.unwrap().unwrap();
    assert_eq!((pair.id.as_str(), pair.name.as_str(), pair.bound), ("k-1", "rkm_1", Some(2)));
    assert_eq!(pair.public_key, Some(PublicKey::parse(KEY).unwrap()));
    assert_eq!(client.find_key_pair(&"rkm_2".into()).await, Ok(None));
    assert_eq!(
        asked(&script),
        [
            "GET /v2/keypair?name=rkm_1&maxKeys=1000",
            "GET /v2/keypair?name=rkm_1&maxKeys=1000&marker=k-9",
            "GET /v2/keypair?name=rkm_2&maxKeys=1000",
        ]
    );
}

#[tokio::test]
async fn a_pair_that_is_listed_without_its_key_is_asked_for_alone() {
    let listed = r#"{"keypairs":[{"keypairId":"k-1","name":"rkm_1","instanceCount":2}],"isTruncated":false}"#;
    let shown = format!(r#"{{"keypair":{{"keypairId":"k-1","name":"rkm_1","publicKey":"{KEY} bj"}}}}"#);
    let script = Script::of([ok(listed), ok(&shown)]);
    let pair = client(&script).find_key_pair(&"rkm_1".into()).await.unwrap().unwrap();
    assert_eq!((pair.public_key, pair.bound), (Some(PublicKey::parse(KEY).unwrap()), Some(2)));
    assert_eq!(asked(&script), ["GET /v2/keypair?name=rkm_1&maxKeys=1000", "GET /v2/keypair/k-1"]);

    let gone = r#"{"code":"Keypair.KeypairNotExist","message":"no","requestId":"R"}"#;
    let check = async |reply: Answer, expect: std::result::Result<Option<bool>, Kind>| {
        let times = if expect == Err(Kind::Protocol) { 3 } else { 1 };
        let script = Script::of([ok(listed)].into_iter().chain((0..times).map(|_| reply.clone())));
        let found = client(&script).find_key_pair(&"rkm_1".into()).await;
        let found = found.map(|pair| pair.map(|pair| pair.public_key.is_some())).map_err(|error| error.kind);
        assert_eq!(found, expect);
    };
    check(answer(404, &[], gone), Ok(None)).await;
    check(ok(r#"{"keypair":{"keypairId":"k-1","name":"rkm_1"}}"#), Ok(Some(false))).await;
    check(ok("{}"), Err(Kind::Protocol)).await;
    check(answer(403, &[], r#"{"code":"AccessDenied","message":"no"}"#), Err(Kind::Denied)).await;
    // Another pair is not the answer, nor is it rubbish that may be gone the next time.
    let script = Script::of([ok(listed), ok(&shown.replace("k-1", "k-2"))]);
    let error = client(&script).find_key_pair(&"rkm_1".into()).await.unwrap_err();
    assert_eq!((error.kind, error.action.as_str()), (Kind::Protocol, "GetKeypairDetail"));
}

#[tokio::test]
async fn key_pairs_of_a_prefix_are_picked_from_all() {
    let all = [("k-1", "rkm_1"), ("k-2", "RKM_2"), ("k-3", "rkm_3")];
    let script = Script::of([pairs_page(&all[..2], Some("k-2")), pairs_page(&all[1..], None)]);
    let pairs = client(&script).key_pairs("rkm_").await.unwrap();
    let names: Vec<&str> = pairs.iter().map(|pair| pair.name.as_str()).collect();
    assert_eq!(names, ["rkm_1", "rkm_3"]);
    assert_eq!(asked(&script), ["GET /v2/keypair?maxKeys=1000", "GET /v2/keypair?maxKeys=1000&marker=k-2"]);
}

#[tokio::test]
async fn an_import_answers_the_id_and_a_known_key_is_already() {
    let known = r#"{"code":"Keypair.KeypairPublicKeyExist","message":"It exists.","requestId":"R9"}"#;
    let script = Script::of([
        ok(r#"{"keypair":{"keypairId":"k-1","name":"rkm_1","fingerPrint":"x","instanceCount":0}}"#),
        answer(400, &[], known),
        ok(r#"{"keypair":{"keypairId":"k-1","name":"other"}}"#),
        ok(""),
    ]);
    let client = client(&script);
    let key = PublicKey::parse(&format!("{KEY} me@here")).unwrap();
    let name = KeyPairName::from("rkm_1");
    assert_eq!(client.import_key_pair(&name, &key, before()).await, Ok("k-1".into()));
    let expect = format!(r#"PUT /v2/keypair?import= {{"name":"rkm_1","publicKey":"{KEY}"}}"#);
    assert_eq!(asked(&script), [expect]);
    let error = client.import_key_pair(&name, &key, before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Already, Effect::NotDone));
    assert_eq!(error.to_string(), "ImportKeypair: Keypair.KeypairPublicKeyExist: It exists. (request R9)");
    for _ in 0..2 {
        let error = client.import_key_pair(&name, &key, before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
    }
}

#[tokio::test]
async fn a_deletion_of_a_bound_pair_is_in_use_and_of_a_missing_one_already_done() {
    let check = async |reply: Answer, expect: std::result::Result<(), Kind>| {
        let script = Script::of([reply]);
        let result = client(&script).delete_key_pair(&"k-1".into(), before()).await;
        assert_eq!(result.map_err(|error| error.kind), expect);
        assert_eq!(asked(&script), ["DELETE /v2/keypair/k-1"]);
    };
    check(ok(""), Ok(())).await;
    check(answer(204, &[], ""), Ok(())).await;
    let bound = r#"{"code":"Keypair.DeleteKeypairInUse","message":"x","requestId":"R"}"#;
    check(answer(403, &[], bound), Err(Kind::InUse)).await;
    let missing = r#"{"code":"Keypair.KeypairNotExist","message":"x","requestId":"R"}"#;
    check(answer(404, &[], missing), Err(Kind::Already)).await;
    check(ok("<html>"), Err(Kind::Protocol)).await;
}

#[tokio::test]
async fn an_empty_key_pair_id_never_becomes_the_path_of_all_of_them() {
    let script = Script::of([]);
    let client = client(&script);
    for id in ["", ".", ".."] {
        assert_eq!(client.delete_key_pair(&id.into(), before()).await.unwrap_err().kind, Kind::Invalid);
        assert_eq!(client.bind(&id.into(), &ids(&["i-1"]), before()).await.unwrap_err().kind, Kind::Invalid);
    }
}

#[tokio::test]
async fn a_bind_names_who_failed_and_may_say_nothing_at_all() {
    let batch = ids(&["i-1", "i-2", "i-3"]);
    let script = Script::of([
        ok(r#"{"requestId":"R7","failedInstanceIdList":["i-2","i-9","i-2"]}"#),
        answer(200, &[("x-bce-request-id", "R8")], ""),
    ]);
    let client = client(&script);
    let accepted = client.bind(&"k-1".into(), &batch, before()).await.unwrap();
    assert_eq!(accepted.request_id.as_deref(), Some("R7"));
    let refused: Vec<_> = accepted
        .refused
        .iter()
        .map(|(id, error)| (id.as_str(), error.kind, error.effect, error.blame, error.request_id.as_deref()))
        .collect();
    assert_eq!(refused, [("i-2", Kind::InvalidState, Effect::NotDone, Blame::Instance, Some("R7"))]);
    let accepted = client.unbind(&"k-1".into(), &batch, before()).await.unwrap();
    assert_eq!(accepted, Accepted { request_id: Some("R8".to_string()), refused: Vec::new() });
    let body = r#"{"instanceIds":["i-1","i-2","i-3"]}"#;
    let path = "PUT /v2/keypair/k-1";
    assert_eq!(asked(&script), [format!("{path}?attach= {body}"), format!("{path}?detach= {body}")]);
}

#[tokio::test]
async fn power_goes_out_with_its_safe_settings() {
    let check = async |change: PowerChange, expect: &str| {
        let script = Script::of([ok(r#"{"requestId":"R"}"#)]);
        let accepted = client(&script).power(change, &ids(&["i-1"]), before()).await.unwrap();
        assert_eq!(accepted, Accepted { request_id: Some("R".to_string()), refused: Vec::new() });
        assert_eq!(asked(&script), [format!("PUT /v2/instance/batchAction?{expect}")]);
    };
    let stop = |force: &str| format!(r#"stop= {{"forceStop":{force},"instanceIds":["i-1"],"stopWithNoCharge":false}}"#);
    check(PowerChange::Stop { force: false }, &stop("false")).await;
    check(PowerChange::Stop { force: true }, &stop("true")).await;
    check(PowerChange::Start, r#"start= {"instanceIds":["i-1"]}"#).await;
    check(PowerChange::Reboot, r#"reboot= {"forceStop":false,"instanceIds":["i-1"]}"#).await;
}

#[tokio::test]
async fn one_instance_in_the_wrong_state_fails_the_batch_and_is_blamed() {
    let body = r#"{"code":"Instance.StopInstanceOperationForbidden","message":"i-2 is not running","requestId":"R"}"#;
    let script = Script::of([answer(409, &[], body)]);
    let stop = PowerChange::Stop { force: false };
    let error = client(&script).power(stop, &ids(&["i-1", "i-2"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect, error.blame), (Kind::InvalidState, Effect::NotDone, Blame::Instance));
    assert_eq!(error.action, "BatchStopInstance");
}

#[tokio::test]
async fn a_batch_of_nobody_or_of_too_many_is_refused_here() {
    let script = Script::of([]);
    let client = client(&script);
    let many: Vec<InstanceId> = (0..101).map(|number| InstanceId::new(format!("i-{number}"))).collect();
    for batch in [&many[..0], &many[..]] {
        for error in [
            client.bind(&"k".into(), batch, before()).await.unwrap_err(),
            client.unbind(&"k".into(), batch, before()).await.unwrap_err(),
            client.power(PowerChange::Reboot, batch, before()).await.unwrap_err(),
        ] {
            assert_eq!((error.kind, error.effect), (Kind::Invalid, Effect::NotDone));
        }
    }
    assert_eq!(asked(&script), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_of_unknown_outcome_goes_back_to_the_engine() {
    let fault = |code: &str| format!(r#"{{"code":"{code}","message":"oops","requestId":"R"}}"#);
    for (reply, kind) in [
        (answer(500, &[], &fault("InternalError")), Kind::Unavailable),
        (answer(400, &[], &fault("Http400")), Kind::Unavailable),
        (answer(502, &[], "<html>busy</html>"), Kind::Unavailable),
        (Err(TransportError::NoAnswer("time-out".to_string())), Kind::Unavailable),
        (ok("<html>"), Kind::Protocol),
        (ok(r#"{"failedInstanceIdList":7}"#), Kind::Protocol),
    ] {
        let script = Script::of([reply]);
        let error = client(&script).bind(&"k-1".into(), &ids(&["i-1"]), before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (kind, Effect::Unknown), "{error}");
        script.is_played_out();
    }
}

#[tokio::test]
async fn an_expired_request_is_signed_anew_and_sent_once_more_and_then_denied() {
    for code in ["RequestExpired", "RequestTimeTooSkewed"] {
        let expired = || answer(400, &[], &format!(r#"{{"code":"{code}","message":"too old","requestId":"R"}}"#));
        let script = Script::of([expired(), ok("")]);
        client(&script).bind(&"k-1".into(), &ids(&["i-1"]), before()).await.unwrap();
        script.is_played_out();
        let script = Script::of([expired(), expired()]);
        let error = client(&script).bind(&"k-1".into(), &ids(&["i-1"]), before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect, error.blame), (Kind::Denied, Effect::NotDone, Blame::Account));
    }
}

#[tokio::test]
async fn an_unknown_conflict_is_an_instances_wrong_state_and_halts_nothing() {
    let conflict = answer(409, &[], r#"{"code":"Instance.SomethingNew","message":"not now","requestId":"R"}"#);
    let script = Script::of([conflict.clone(), conflict]);
    let client = client(&script);
    for error in [
        client.bind(&"k-1".into(), &ids(&["i-1", "i-2"]), before()).await.unwrap_err(),
        client.power(PowerChange::Start, &ids(&["i-1", "i-2"]), before()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind, error.effect, error.blame), (Kind::InvalidState, Effect::NotDone, Blame::Instance));
    }
}

#[tokio::test]
async fn a_throttled_change_is_signed_anew_and_repeated_and_a_read_goes_through_an_outage() {
    let script = Script::of([answer(429, &[("retry-after", "2")], ""), ok("")]);
    client(&script).bind(&"k-1".into(), &ids(&["i-1"]), before()).await.unwrap();
    let date = |request: &Request| request.headers[1].1.clone();
    let dates: Vec<String> = script.asked.lock().unwrap().iter().map(date).collect();
    assert_eq!(dates, [NOW, "2026-11-22T00:00:02Z"]);
    let script = Script::of([answer(503, &[], ""), page(&[instance("i-1", "")], None)]);
    assert_eq!(found(client(&script).instances(&Select::All).await), ["i-1"]);
}

#[tokio::test]
async fn nothing_is_sent_when_its_time_is_up() {
    let script = Script::of([]);
    let error = client(&script).bind(&"k".into(), &ids(&["i-1"]), NOW.parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Throttled, Effect::NotDone));
    assert_eq!(asked(&script), Vec::<String>::new());
}

#[tokio::test]
async fn an_error_repeats_no_secret() {
    let body = r#"{"code":"SignatureDoesNotMatch","message":"ALTAKfake0001 with the-secret","requestId":"R"}"#;
    let script = Script::of([answer(400, &[], body)]);
    let error = client(&script).bind(&"k".into(), &ids(&["i-1"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.blame), (Kind::Denied, Blame::Account));
    assert!(!error.to_string().contains("the-secret") && !error.to_string().contains("ALTAKfake0001"), "{error}");
}

#[tokio::test]
async fn the_clouds_clock_is_noted() {
    let date = [("date", "Sun, 22 Nov 2026 00:01:30 GMT")];
    let script = Script::of([answer(200, &date, r#"{"isTruncated":false,"instances":[]}"#)]);
    let client = client(&script);
    assert_eq!(client.clock_difference(), None);
    found(client.instances(&Select::All).await);
    assert_eq!(client.clock_difference(), Some(SignedDuration::from_secs(-90)));
}

#[tokio::test]
async fn every_action_that_is_called_stands_in_the_list_and_no_other() {
    let denied = || answer(403, &[], r#"{"code":"New","message":"x","requestId":"R"}"#);
    let keyless = ok(r#"{"keypairs":[{"keypairId":"k-1","name":"rkm_1"}]}"#);
    let script = Script::of((0..13).map(|_| denied()).chain([keyless, denied()]));
    let client = client(&script);
    let (one, pair, key) = (ids(&["i-1"]), KeyPairId::from("k-1"), PublicKey::parse(KEY).unwrap());
    let tags = [("role".to_string(), "web".to_string())].into();
    let called = [
        client.instances(&Select::Tags(tags)).await.unwrap_err(),
        client.instances(&Select::All).await.unwrap_err(),
        client.instances(&Select::Ids(one.clone())).await.unwrap_err(),
        client.instances(&Select::BoundTo(pair.clone())).await.unwrap_err(),
        client.find_key_pair(&"rkm_1".into()).await.unwrap_err(),
        client.key_pairs("rkm_").await.unwrap_err(),
        client.import_key_pair(&"rkm_1".into(), &key, before()).await.unwrap_err(),
        client.delete_key_pair(&pair, before()).await.unwrap_err(),
        client.bind(&pair, &one, before()).await.unwrap_err(),
        client.unbind(&pair, &one, before()).await.unwrap_err(),
        client.power(PowerChange::Stop { force: false }, &one, before()).await.unwrap_err(),
        client.power(PowerChange::Start, &one, before()).await.unwrap_err(),
        client.power(PowerChange::Reboot, &one, before()).await.unwrap_err(),
        client.find_key_pair(&"rkm_1".into()).await.unwrap_err(),
    ];
    assert!(called.iter().all(|error| error.kind == Kind::Denied));
    let called: BTreeSet<&str> = called.iter().map(|error| error.action.as_str()).collect();
    assert_eq!(called, ACTIONS.iter().copied().collect());
    script.is_played_out();
}
