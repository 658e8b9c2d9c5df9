//! Literal requests and literal answers of ECS, through a scripted transport; no network.

use std::sync::Arc;

use super::*;
use crate::net::Origin;
use crate::provider::http::door::tests::{ManualClock, Script, answer};
use crate::provider::http::{Door, Transport, TransportError};
use crate::provider::{Credentials, Effect, Power};

const NOW: &str = "2026-11-22T00:00:00Z";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRt5fUrGTvf1m8NgBbQ6BBAjSLiQbbcyYFhPzhB6YAF";

type Answer = std::result::Result<Response, TransportError>;

fn client_with(script: &Arc<Script>, token: Option<&str>) -> Ecs {
    let credentials = Credentials {
        access_key_id: "LTAIFAKE0001".to_string(),
        access_key_secret: "the-secret".into(),
        session_token: token.map(Into::into),
    };
    let transport: Arc<dyn Transport> = script.clone();
    let door = Door::new(transport, ManualClock::at(NOW), &BTreeMap::new(), credentials.into(), 7);
    let origin = Origin::parse("https://ecs-cn-hangzhou.aliyuncs.com").unwrap();
    Ecs::new(Parts { origin, region: "cn-hangzhou".into(), door })
}

fn client(script: &Arc<Script>) -> Ecs {
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

/// Action and decoded parameters of each request that was sent, without the region.
fn asked(script: &Script) -> Vec<String> {
    let requests = script.asked.lock().unwrap();
    requests
        .iter()
        .map(|request| {
            let (_, action) = request.headers.iter().find(|(name, _)| name == "x-acs-action").unwrap();
            let decoded = percent_encoding::percent_decode_str(&request.query).decode_utf8().unwrap().into_owned();
            let pairs: Vec<&str> = decoded.split('&').filter(|pair| *pair != "RegionId=cn-hangzhou").collect();
            assert_eq!(pairs.len() + 1, decoded.split('&').count(), "the region goes with every call");
            format!("{action} {}", pairs.join("&"))
        })
        .collect()
}

fn instance(id: &str, fields: &str) -> String {
    format!(r#"{{"InstanceId":"{id}","Status":"Running"{fields}}}"#)
}

fn page(instances: &[String], next: &str) -> Answer {
    ok(&format!(r#"{{"RequestId":"R","NextToken":"{next}","Instances":{{"Instance":[{}]}}}}"#, instances.join(",")))
}

fn tagged(id: &str, value: &str) -> String {
    instance(id, &format!(r#","Tags":{{"Tag":[{{"TagKey":"role","TagValue":"{value}"}}]}}"#))
}

fn found(instances: Result<Vec<Instance>>) -> Vec<String> {
    instances.unwrap().into_iter().map(|instance| instance.id.to_string()).collect()
}

#[tokio::test]
async fn a_request_is_a_post_with_everything_in_its_query_and_signed() {
    let script = Script::of([ok(r#"{"RequestId":"R","Results":{"Result":[]}}"#)]);
    client(&script).bind(&"rkm_1".into(), &ids(&["i-1", "i-2"]), before()).await.unwrap();
    let request = script.asked.lock().unwrap().remove(0);
    assert_eq!((request.method, request.path.as_str(), request.body.len()), ("POST", "/", 0));
    assert_eq!(request.origin, "https://ecs-cn-hangzhou.aliyuncs.com");
    assert_eq!(request.query, "InstanceIds=%5B%22i-1%22%2C%22i-2%22%5D&KeyPairName=rkm_1&RegionId=cn-hangzhou");
    let header =
        |wanted: &str| request.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let nonce = header("x-acs-signature-nonce").unwrap();
    assert_eq!(nonce.len(), 32);
    let expect = [
        ("host", "ecs-cn-hangzhou.aliyuncs.com"),
        ("accept", "application/json"),
        ("x-acs-action", "AttachKeyPair"),
        ("x-acs-version", "2014-05-26"),
        ("x-acs-date", NOW),
        ("x-acs-signature-nonce", nonce),
        ("x-acs-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("authorization", header("authorization").unwrap()),
    ];
    let sent: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(sent, expect);
    let parts = sign::Parts { method: "POST", path: "/", query: &request.query, headers: &request.headers, body: b"" };
    let again = sign::sign("LTAIFAKE0001", "the-secret", parts, sign::must_be_signed);
    assert_eq!(header("authorization"), Some(again.authorization.as_str()));
    let list = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
    assert!(again.authorization.contains(&format!("SignedHeaders={list},")), "{}", again.authorization);
}

#[tokio::test]
async fn a_session_token_goes_with_the_request_and_is_signed() {
    let script = Script::of([page(&[], "")]);
    found(client_with(&script, Some("a/token+=")).instances(&Select::All).await);
    let request = script.asked.lock().unwrap().remove(0);
    let header = |wanted: &str| request.headers.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
    assert_eq!(header("x-acs-security-token"), "a/token+=");
    assert_eq!(header("x-acs-accesskey-id"), "LTAIFAKE0001");
    assert!(header("authorization").contains("x-acs-accesskey-id;x-acs-action;"));
    assert!(header("authorization").contains("x-acs-date;x-acs-security-token;x-acs-signature-nonce"));
}

#[tokio::test]
async fn tags_are_looked_up_by_resource_then_by_ids_and_matched_here() {
    let rows = |ids: &[&str], next: &str| {
        let rows = ids
            .iter()
            .map(|id| format!(r#"{{"ResourceId":"{id}","ResourceType":"instance","TagKey":"role","TagValue":"web"}}"#));
        let rows = rows.collect::<Vec<_>>().join(",");
        ok(&format!(r#"{{"NextToken":"{next}","TagResources":{{"TagResource":[{rows}]}}}}"#))
    };
    let script = Script::of([
        rows(&["i-3", "i-1"], "t1"),
        rows(&["i-2"], ""),
        // i-2 lost its tag meanwhile, i-3 was released, i-9 was never asked for.
        page(&[tagged("i-1", "web"), tagged("i-2", "db"), tagged("i-9", "web")], ""),
    ]);
    let tags = [("role".to_string(), "web".to_string()), ("empty".to_string(), String::new())];
    let only_role = tags[..1].iter().cloned().collect();
    assert_eq!(found(client(&script).instances(&Select::Tags(only_role)).await), ["i-1"]);
    assert_eq!(
        asked(&script),
        [
            "ListTagResources ResourceType=instance&Tag.1.Key=role&Tag.1.Value=web",
            "ListTagResources NextToken=t1&ResourceType=instance&Tag.1.Key=role&Tag.1.Value=web",
            r#"DescribeInstances InstanceIds=["i-1","i-2","i-3"]&MaxResults=100"#,
        ]
    );

    let script = Script::of([rows(&[], "")]);
    assert_eq!(found(client(&script).instances(&Select::Tags(tags.into())).await), Vec::<String>::new());
    let expect = "ListTagResources ResourceType=instance&Tag.1.Key=empty&Tag.2.Key=role&Tag.2.Value=web";
    assert_eq!(asked(&script), [expect]);
}

#[tokio::test]
async fn an_account_that_may_not_list_tags_asks_by_tag_filter() {
    for (status, code) in
        [(403, "Forbidden.RAM"), (403, "New"), (404, "InvalidAction.NotFound"), (400, "UnsupportedOperation")]
    {
        let refused = answer(status, &[], &format!(r#"{{"Code":"{code}","Message":"no","RequestId":"R"}}"#));
        let script = Script::of([
            refused,
            page(&[tagged("i-1", "web"), tagged("i-2", "db")], "t1"),
            page(&[tagged("i-3", "web")], ""),
        ]);
        let tags = [("bare".to_string(), String::new()), ("role".to_string(), "web".to_string())];
        let only_role = tags[1..].iter().cloned().collect();
        assert_eq!(found(client(&script).instances(&Select::Tags(only_role)).await), ["i-1", "i-3"], "{code}");
        assert_eq!(
            asked(&script)[1..],
            [
                "DescribeInstances MaxResults=100&Tag.1.Key=role&Tag.1.Value=web",
                "DescribeInstances MaxResults=100&NextToken=t1&Tag.1.Key=role&Tag.1.Value=web",
            ]
        );
    }
}

#[tokio::test]
async fn more_than_a_tag_filter_can_find_are_never_taken_for_all() {
    let denied = || answer(403, &[], r#"{"Code":"Forbidden.RAM","Message":"not authorized","RequestId":"R"}"#);
    let tags = || Select::Tags([("role".to_string(), "web".to_string())].into());
    let full = |count: usize| {
        let pages = (0..count.div_ceil(100)).map(move |number| {
            let ids = number * 100..count.min(number * 100 + 100);
            let next = if ids.end == count { String::new() } else { format!("t{number}") };
            page(&ids.map(|id| tagged(&format!("i-{id:04}"), "web")).collect::<Vec<_>>(), &next)
        });
        pages.collect::<Vec<_>>()
    };
    let one = tagged("i-1", "web");
    let told = ok(&format!(r#"{{"RequestId":"R","TotalCount":"1001","Instances":{{"Instance":[{one}]}}}}"#));
    for answers in [full(1000), vec![told]] {
        let script = Script::of([denied()].into_iter().chain(answers));
        let error = client(&script).instances(&tags()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (Kind::Denied, Effect::NotDone));
        assert_eq!((error.action.as_str(), error.code.as_str()), ("ListTagResources", "Forbidden.RAM"));
        assert!(error.message.contains("allow the action ecs:ListTagResources"), "{error}");
        script.is_played_out();
    }
    let script = Script::of([denied()].into_iter().chain(full(999)));
    assert_eq!(found(client(&script).instances(&tags()).await).len(), 999);
    // Where neither is allowed, the one that cannot be done without is named; an outage is no refusal.
    let script = Script::of([denied(), denied()]);
    let error = client(&script).instances(&tags()).await.unwrap_err();
    assert_eq!((error.kind, error.action.as_str()), (Kind::Denied, "DescribeInstances"));
    let quota = answer(403, &[], r#"{"Code":"QuotaExceeded","Message":"x","RequestId":"R"}"#);
    let error = client(&Script::of([quota])).instances(&tags()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Quota);
}

#[tokio::test]
async fn no_more_than_twenty_tags_are_asked_for_and_no_tags_mean_all() {
    let script = Script::of([ok(r#"{"TagResources":{"TagResource":[]}}"#)]);
    let tags = (10..35).map(|number| (format!("k{number}"), "v".to_string())).collect();
    found(client(&script).instances(&Select::Tags(tags)).await);
    assert!(asked(&script)[0].contains("Tag.20.Value=v") && !asked(&script)[0].contains("Tag.21"));

    let script = Script::of([page(&[tagged("i-1", "web")], "")]);
    assert_eq!(found(client(&script).instances(&Select::Tags(BTreeMap::new())).await), ["i-1"]);
    assert_eq!(asked(&script), ["DescribeInstances MaxResults=100"]);
}

#[tokio::test]
async fn a_listing_goes_to_its_last_page_and_has_each_instance_once() {
    let script = Script::of([
        page(&[instance("i-2", ""), instance("i-1", "")], "t1"),
        page(&[instance("i-2", ""), instance("i-3", "")], "t2"),
        page(&[], ""),
    ]);
    assert_eq!(found(client(&script).instances(&Select::All).await), ["i-1", "i-2", "i-3"]);
    let expect = ["MaxResults=100", "MaxResults=100&NextToken=t1", "MaxResults=100&NextToken=t2"];
    assert_eq!(asked(&script), expect.map(|query| format!("DescribeInstances {query}")));
    script.is_played_out();
}

#[tokio::test]
async fn a_token_that_comes_twice_ends_the_listing_as_rubbish() {
    let script = Script::of([page(&[], "t1"), page(&[], "t2"), page(&[], "t1")]);
    let error = client(&script).instances(&Select::All).await.unwrap_err();
    assert_eq!((error.kind, error.action.as_str()), (Kind::Protocol, "DescribeInstances"));
}

#[tokio::test]
async fn ids_are_asked_for_by_the_hundred_and_each_once() {
    let all: Vec<InstanceId> = (0..250).map(|number| InstanceId::new(format!("i-{number:03}"))).collect();
    let twice = [&all[..], &all[..7]].concat();
    let answers = all.chunks(100).map(|chunk| {
        let known: Vec<String> = chunk.iter().skip(1).map(|id| instance(id.as_str(), "")).collect();
        page(&known, "")
    });
    let script = Script::of(answers);
    let shown = found(client(&script).instances(&Select::Ids(twice)).await);
    assert_eq!(shown.len(), 247, "the first of each hundred is not known");
    assert!(!shown.contains(&"i-100".to_string()) && shown.contains(&"i-101".to_string()));
    script.is_played_out();
    assert_eq!(found(client(&Script::of([])).instances(&Select::Ids(Vec::new())).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_look_is_halved_until_the_unknown_instance_stands_alone() {
    let refused = || answer(404, &[], r#"{"Code":"InvalidInstanceIds.NotFound","Message":"no","RequestId":"R"}"#);
    let script = Script::of([
        refused(),
        page(&[instance("i-1", "")], ""),
        refused(),
        refused(),
        page(&[instance("i-3", "")], ""),
    ]);
    let select = Select::Ids(ids(&["i-1", "i-2", "i-3"]));
    assert_eq!(found(client(&script).instances(&select).await), ["i-1", "i-3"]);
    script.is_played_out();
}

#[tokio::test]
async fn no_other_refusal_looks_like_the_death_of_an_instance() {
    for (status, body, kind) in [
        (404, r#"{"Code":"InvalidAction.NotFound","Message":"x","RequestId":"R"}"#, Kind::NotFound),
        (404, r#"{"Code":"InvalidRegionId.NotFound","Message":"x","RequestId":"R"}"#, Kind::Invalid),
        (404, r#"{"Code":"InvalidAccessKeyId.NotFound","Message":"x","RequestId":"R"}"#, Kind::Denied),
        (404, "<html>not here</html>", Kind::Protocol),
        (200, "<html>please log in</html>", Kind::Protocol),
        (200, r#"{"RequestId":"R"}"#, Kind::Protocol),
        (200, r#"{"RequestId":"R","Instances":{"Inst"#, Kind::Protocol),
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
    let bound = |id: &str, pair: &str| instance(id, &format!(r#","KeyPairName":"{pair}""#));
    let script = Script::of([page(&[bound("i-1", "rkm_1"), bound("i-2", "rkm_10"), instance("i-3", "")], "")]);
    assert_eq!(found(client(&script).instances(&Select::BoundTo("rkm_1".into())).await), ["i-1"]);
    assert_eq!(asked(&script), ["DescribeInstances KeyPairName=rkm_1&MaxResults=100"]);
}

#[tokio::test]
async fn nobody_is_bound_to_a_pair_that_the_cloud_does_not_know_and_it_is_not_found() {
    let unknown = || answer(400, &[], r#"{"Code":"InvalidKeyPairName.NotFound","Message":"no","RequestId":"R"}"#);
    let script = Script::of([unknown(), unknown(), unknown()]);
    let client = client(&script);
    assert_eq!(found(client.instances(&Select::BoundTo("rkm_1".into())).await), Vec::<String>::new());
    assert_eq!(client.find_key_pair(&"rkm_1".into()).await, Ok(None));
    assert_eq!(client.key_pairs("rkm_").await, Ok(Vec::new()));
}

#[tokio::test]
async fn an_instance_comes_back_as_the_cloud_shows_it() {
    let fields = r#","KeyPairName":"rkm_1","StartTime":"2026-11-21T22:32Z","OSType":"linux""#;
    let script = Script::of([page(&[instance("i-1", fields)], "")]);
    let shown = client(&script).instances(&Select::Ids(ids(&["i-1"]))).await.unwrap().remove(0);
    assert_eq!((shown.power, shown.boot.as_deref()), (Power::Running, Some("2026-11-21T22:32Z")));
    assert_eq!((shown.keys, shown.unfit), (vec!["rkm_1".into()], None));
}

fn pairs_page(names: &[&str], total: usize) -> Answer {
    let pairs = names.iter().map(|name| format!(r#"{{"KeyPairName":"{name}","PublicKey":"{KEY} imported"}}"#));
    let pairs = pairs.collect::<Vec<_>>().join(",");
    ok(&format!(r#"{{"RequestId":"R","TotalCount":{total},"KeyPairs":{{"KeyPair":[{pairs}]}}}}"#))
}

fn names(pairs: &[KeyPair]) -> Vec<&str> {
    pairs.iter().map(|pair| pair.name.as_str()).collect()
}

#[tokio::test]
async fn a_key_pair_is_found_by_its_exact_name_with_its_public_key() {
    let script = Script::of([pairs_page(&["rkm_1", "rkm_10"], 2), pairs_page(&[], 0)]);
    let client = client(&script);
    let pair = client.find_key_pair(&"rkm_1".into()).await.unwrap().unwrap();
    assert_eq!((pair.id.as_str(), pair.name.as_str(), pair.bound), ("rkm_1", "rkm_1", None));
    assert_eq!(pair.public_key, Some(PublicKey::parse(KEY).unwrap()));
    assert_eq!(client.find_key_pair(&"rkm_2".into()).await, Ok(None));
    let query =
        |name: &str| format!("DescribeKeyPairs IncludePublicKey=true&KeyPairName={name}&PageNumber=1&PageSize=50");
    assert_eq!(asked(&script), [query("rkm_1"), query("rkm_2")]);
}

#[tokio::test]
async fn key_pairs_of_a_prefix_come_from_every_page_and_are_checked_here() {
    let (one, two) = (pairs_page(&["rkm_1", "RKM_2"], 3), pairs_page(&["rkm_3"], 3));
    let script = Script::of([one.clone(), two.clone(), one, two]);
    assert_eq!(names(&client(&script).key_pairs("rkm_").await.unwrap()), ["rkm_1", "rkm_3"]);
    let query =
        |page: u32| format!("DescribeKeyPairs IncludePublicKey=true&KeyPairName=rkm_*&PageNumber={page}&PageSize=50");
    assert_eq!(
        asked(&script),
        [query(1), query(2), query(1), query(2)],
        "several pages are read until two readings agree"
    );
}

#[tokio::test]
async fn a_listing_of_key_pairs_that_moves_is_begun_again() {
    let script = Script::of([
        pairs_page(&["a1", "a2"], 3),
        pairs_page(&["a3"], 4),
        // One was deleted before the second page: a4 slid onto the first and is seen nowhere.
        pairs_page(&["a1", "a2"], 3),
        pairs_page(&["a2"], 3),
        pairs_page(&[], 3),
        // One went and one came: the total stands, and a3 is missing until the next reading.
        pairs_page(&["a0", "a1"], 3),
        pairs_page(&["a9"], 3),
        pairs_page(&["a1", "a2"], 3),
        pairs_page(&["a3"], 3),
        pairs_page(&["a1", "a2"], 3),
        pairs_page(&["a3"], 3),
    ]);
    assert_eq!(names(&client(&script).key_pairs("a").await.unwrap()), ["a1", "a2", "a3"]);
    script.is_played_out();

    let script = Script::of((0..10).map(|turn| pairs_page(&["a1"], 2 + turn)));
    let error = client(&script).key_pairs("a").await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Unavailable, "moving"));
}

#[tokio::test]
async fn an_import_answers_the_name_and_a_taken_name_is_already() {
    let taken = r#"{"Code":"KeyPair.AlreadyExist","Message":"The key pair already exist.","RequestId":"R9"}"#;
    let script = Script::of([
        ok(r#"{"RequestId":"R","KeyPairName":"rkm_1","KeyPairFingerPrint":"x"}"#),
        answer(400, &[], taken),
        ok(r#"{"RequestId":"R","KeyPairName":"other"}"#),
    ]);
    let client = client(&script);
    let key = PublicKey::parse(&format!("{KEY} me@here")).unwrap();
    assert_eq!(client.import_key_pair(&"rkm_1".into(), &key, before()).await, Ok("rkm_1".into()));
    assert_eq!(asked(&script), [format!("ImportKeyPair KeyPairName=rkm_1&PublicKeyBody={KEY}")]);
    let error = client.import_key_pair(&"rkm_1".into(), &key, before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Already, Effect::NotDone));
    assert_eq!(error.to_string(), "ImportKeyPair: KeyPair.AlreadyExist: The key pair already exist. (request R9)");
    let error = client.import_key_pair(&"rkm_1".into(), &key, before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
}

#[tokio::test]
async fn a_deletion_of_a_bound_pair_is_in_use_and_of_a_missing_one_already_done() {
    let check = async |reply: Answer, expect: std::result::Result<(), Kind>| {
        let script = Script::of([reply]);
        let result = client(&script).delete_key_pair(&"rkm_1".into(), before()).await;
        assert_eq!(result.map_err(|error| error.kind), expect);
        assert_eq!(asked(&script), [r#"DeleteKeyPairs KeyPairNames=["rkm_1"]"#]);
    };
    check(ok(r#"{"RequestId":"R"}"#), Ok(())).await;
    let bound = r#"{"Code":"InvalidParameter.KeypairAlreadyAttachedInstance","Message":"x","RequestId":"R"}"#;
    check(answer(400, &[], bound), Err(Kind::InUse)).await;
    let missing = r#"{"Code":"InvalidKeyPairName.NotFound","Message":"x","RequestId":"R"}"#;
    check(answer(404, &[], missing), Err(Kind::Already)).await;
    check(ok("<html>"), Err(Kind::Protocol)).await;
}

#[tokio::test]
async fn a_bind_is_read_one_by_one() {
    let element = |id: &str, rest: &str| format!(r#"{{"InstanceId":"{id}",{rest}}}"#);
    let elements = [
        element("i-1", r#""Success":"true","Code":"200","Message":"successful""#),
        element("i-2", r#""Success":false,"Code":"DependencyViolation.WindowsInstance","Message":"It runs Windows.""#),
        element("i-3", r#""Success":"true","Code":"200","Message":"successful""#),
        element("i-9", r#""Success":false,"Code":"InternalError","Message":"never asked for""#),
        element("i-4", r#""Success":true,"Code":403,"Message":"AccessDenied""#),
    ];
    let body = format!(
        r#"{{"RequestId":"R7","KeyPairName":"rkm_1","TotalCount":5,"FailCount":2,"Results":{{"Result":[{}]}}}}"#,
        elements.join(",")
    );
    let script = Script::of([ok(&body)]);
    // i-5 has no element: not refused, to be looked at.
    let batch = ids(&["i-1", "i-2", "i-3", "i-4", "i-5"]);
    let accepted = client(&script).bind(&"rkm_1".into(), &batch, before()).await.unwrap();
    assert_eq!(accepted.request_id.as_deref(), Some("R7"));
    let refused: Vec<_> =
        accepted.refused.iter().map(|(id, error)| (id.as_str(), error.kind, error.effect, error.to_string())).collect();
    let windows = "AttachKeyPair: DependencyViolation.WindowsInstance: It runs Windows. (request R7)".to_string();
    let denied = "AttachKeyPair: 403: AccessDenied (request R7)".to_string();
    assert_eq!(
        refused,
        [("i-2", Kind::Unsupported, Effect::NotDone, windows), ("i-4", Kind::InvalidState, Effect::NotDone, denied)]
    );
    assert!(accepted.refused.iter().all(|(_, error)| error.blame == crate::provider::Blame::Instance));
    let expect = r#"AttachKeyPair InstanceIds=["i-1","i-2","i-3","i-4","i-5"]&KeyPairName=rkm_1"#;
    assert_eq!(asked(&script), [expect]);
}

#[tokio::test]
async fn an_unbind_is_the_same_under_another_name_and_may_answer_nothing_of_anybody() {
    let script = Script::of([ok(r#"{"RequestId":"R"}"#)]);
    let accepted = client(&script).unbind(&"rkm_1".into(), &ids(&["i-1"]), before()).await.unwrap();
    assert_eq!(accepted, Accepted { request_id: Some("R".to_string()), refused: Vec::new() });
    assert_eq!(asked(&script), [r#"DetachKeyPair InstanceIds=["i-1"]&KeyPairName=rkm_1"#]);
}

#[tokio::test]
async fn power_goes_out_with_its_safe_settings() {
    let check = async |change: PowerChange, expect: &str| {
        let body = r#"{"RequestId":"R","InstanceResponses":{"InstanceResponse":[
            {"InstanceId":"i-1","Code":"200","Message":"success"},
            {"InstanceId":"i-2","Code":"IncorrectInstanceStatus","Message":"not so"}]}}"#;
        let script = Script::of([ok(body)]);
        let accepted = client(&script).power(change, &ids(&["i-1", "i-2"]), before()).await.unwrap();
        assert_eq!(asked(&script), [expect]);
        let refused: Vec<_> = accepted.refused.iter().map(|(id, error)| (id.as_str(), error.kind)).collect();
        assert_eq!(refused, [("i-2", Kind::InvalidState)]);
    };
    let stop = |force: &str| {
        format!(
            "StopInstances BatchOptimization=SuccessFirst&ForceStop={force}&InstanceId.1=i-1&InstanceId.2=i-2&\
             StoppedMode=KeepCharging"
        )
    };
    check(PowerChange::Stop { force: false }, &stop("false")).await;
    check(PowerChange::Stop { force: true }, &stop("true")).await;
    let start = "StartInstances BatchOptimization=SuccessFirst&InstanceId.1=i-1&InstanceId.2=i-2";
    check(PowerChange::Start, start).await;
    let reboot = "RebootInstances BatchOptimization=SuccessFirst&ForceReboot=false&InstanceId.1=i-1&InstanceId.2=i-2";
    check(PowerChange::Reboot, reboot).await;
}

#[tokio::test]
async fn a_batch_of_nobody_or_of_too_many_is_refused_here() {
    let script = Script::of([]);
    let client = client(&script);
    let many: Vec<InstanceId> = (0..101).map(|number| InstanceId::new(format!("i-{number}"))).collect();
    for batch in [&many[..0], &many[..51]] {
        for error in [
            client.bind(&"k".into(), batch, before()).await.unwrap_err(),
            client.unbind(&"k".into(), batch, before()).await.unwrap_err(),
        ] {
            assert_eq!((error.kind, error.effect), (Kind::Invalid, Effect::NotDone));
        }
    }
    for batch in [&many[..0], &many[..101]] {
        assert_eq!(client.power(PowerChange::Start, batch, before()).await.unwrap_err().kind, Kind::Invalid);
    }
    assert_eq!(asked(&script), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_is_repeated_when_throttled_or_its_nonce_was_used_with_a_new_one() {
    let fault = |code: &str| format!(r#"{{"Code":"{code}","Message":"later","RequestId":"R"}}"#);
    let script = Script::of([
        answer(400, &[("x-acs-retry-after", "900")], &fault("Throttling.User")),
        answer(400, &[], &fault("SignatureNonceUsed")),
        ok(r#"{"RequestId":"R"}"#),
    ]);
    client(&script).unbind(&"rkm_1".into(), &ids(&["i-1"]), before()).await.unwrap();
    let requests = script.asked.lock().unwrap();
    let header = |wanted: &str| -> Vec<&str> {
        let of = |request: &'_ Request| request.headers.iter().position(|(name, _)| name == wanted).unwrap();
        requests.iter().map(|request| request.headers[of(request)].1.as_str()).collect()
    };
    let nonces: BTreeSet<&str> = header("x-acs-signature-nonce").into_iter().collect();
    assert_eq!(nonces.len(), 3);
    // The date is that of each attempt; whole seconds: the 900 ms are seen in the last one.
    assert_eq!(header("x-acs-date")[0], NOW);
    assert_eq!(header("x-acs-date")[2], "2026-11-22T00:00:01Z");
}

#[tokio::test]
async fn an_expired_request_is_signed_anew_and_sent_once_more_and_then_denied() {
    let expired = || answer(400, &[], r#"{"Code":"InvalidTimeStamp.Expired","Message":"old","RequestId":"R"}"#);
    let script = Script::of([expired(), ok(r#"{"RequestId":"R"}"#)]);
    client(&script).bind(&"rkm_1".into(), &ids(&["i-1"]), before()).await.unwrap();
    script.is_played_out();
    let script = Script::of([expired(), expired()]);
    let error = client(&script).bind(&"rkm_1".into(), &ids(&["i-1"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Denied, Effect::NotDone));
}

#[tokio::test]
async fn an_unknown_conflict_is_an_instances_wrong_state_and_halts_nothing() {
    let conflict = answer(409, &[], r#"{"Code":"InvalidOperation.New","Message":"not now","RequestId":"R"}"#);
    let script = Script::of([conflict.clone(), conflict]);
    let client = client(&script);
    for error in [
        client.bind(&"rkm_1".into(), &ids(&["i-1", "i-2"]), before()).await.unwrap_err(),
        client.power(PowerChange::Reboot, &ids(&["i-1", "i-2"]), before()).await.unwrap_err(),
    ] {
        let blame = crate::provider::Blame::Instance;
        assert_eq!((error.kind, error.effect, error.blame), (Kind::InvalidState, Effect::NotDone, blame));
    }
}

#[tokio::test]
async fn a_dry_run_says_so_is_all_or_none_and_its_success_is_an_error() {
    let told = |code: &str| answer(400, &[], &format!(r#"{{"Code":"{code}","Message":"m","RequestId":"R"}}"#));
    let script = Script::of([
        told("DRYRUN.SUCCESS"),
        told("DryRunOperation"),
        answer(403, &[], r#"{"Code":"Forbidden.RAM","Message":"no","RequestId":"R"}"#),
        ok(r#"{"RequestId":"R","InstanceResponses":{"InstanceResponse":[]}}"#),
    ]);
    let client = client(&script);
    let one = ids(&["i-1"]);
    assert_eq!(client.rehearse(PowerChange::Reboot, &one).await, Ok(Some("RebootInstances")));
    assert_eq!(client.rehearse(PowerChange::Start, &ids(&["i-1", "i-2"])).await, Ok(Some("StartInstances")));
    assert_eq!(client.rehearse(PowerChange::Start, &one).await.unwrap_err().kind, Kind::Denied);
    // Answered as if it had been done: whoever does not know the parameter may have done it.
    let error = client.rehearse(PowerChange::Stop { force: false }, &one).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
    assert_eq!(
        asked(&script),
        [
            "RebootInstances BatchOptimization=AllTogether&DryRun=true&ForceReboot=false&InstanceId.1=i-1",
            "StartInstances BatchOptimization=AllTogether&DryRun=true&InstanceId.1=i-1&InstanceId.2=i-2",
            "StartInstances BatchOptimization=AllTogether&DryRun=true&InstanceId.1=i-1",
            "StopInstances BatchOptimization=AllTogether&DryRun=true&ForceStop=false&InstanceId.1=i-1&StoppedMode=KeepCharging",
        ]
    );
    script.is_played_out();
}

#[tokio::test]
async fn a_change_of_unknown_outcome_goes_back_to_the_engine() {
    let fault = r#"{"Code":"InternalError","Message":"oops","RequestId":"R"}"#;
    for (reply, kind) in [
        (answer(500, &[], fault), Kind::Unavailable),
        (answer(503, &[], "<html>busy</html>"), Kind::Unavailable),
        (Err(TransportError::NoAnswer("time-out".to_string())), Kind::Unavailable),
        (ok("<html>"), Kind::Protocol),
        (ok(r#"{"RequestId":"R","Results":{"Result":[{"InstanceId":7}]}}"#), Kind::Protocol),
    ] {
        let script = Script::of([reply]);
        let error = client(&script).bind(&"rkm_1".into(), &ids(&["i-1"]), before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (kind, Effect::Unknown), "{error}");
        script.is_played_out();
    }
}

#[tokio::test]
async fn a_read_goes_through_an_outage_and_a_gateways_429() {
    let script = Script::of([
        answer(503, &[], "<html>busy</html>"),
        answer(429, &[], ""),
        Err(TransportError::NoAnswer("lost".to_string())),
        page(&[instance("i-1", "")], ""),
    ]);
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
    let body = r#"{"Code":"SignatureDoesNotMatch","Message":"key LTAIFAKE0001, secret the-secret","RequestId":"R"}"#;
    let script = Script::of([
        answer(403, &[], body),
        ok(
            r#"{"RequestId":"R","Results":{"Result":[{"InstanceId":"i-1","Success":false,"Code":"403","Message":"the-secret"}]}}"#,
        ),
    ]);
    let client = client(&script);
    let error = client.bind(&"k".into(), &ids(&["i-1"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.blame), (Kind::Denied, crate::provider::Blame::Account));
    assert!(!error.to_string().contains("the-secret") && !error.to_string().contains("LTAIFAKE0001"), "{error}");
    let accepted = client.bind(&"k".into(), &ids(&["i-1"]), before()).await.unwrap();
    assert!(!accepted.refused[0].1.to_string().contains("the-secret"));
}

#[tokio::test]
async fn the_clouds_clock_is_noted() {
    let script =
        Script::of([answer(200, &[("date", "Sun, 22 Nov 2026 00:01:30 GMT")], r#"{"Instances":{"Instance":[]}}"#)]);
    let client = client(&script);
    assert_eq!(client.clock_difference(), None);
    found(client.instances(&Select::All).await);
    assert_eq!(client.clock_difference(), Some(SignedDuration::from_secs(-90)));
}

#[tokio::test]
async fn every_action_that_is_called_stands_in_the_list_and_no_other() {
    // One more than questions: where tags may not be listed, a filter is asked.
    let script = Script::of((0..14).map(|_| answer(403, &[], r#"{"Code":"New","Message":"x","RequestId":"R"}"#)));
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
    ];
    assert!(called.iter().all(|error| error.kind == Kind::Denied));
    let asked = asked(&script);
    let called: BTreeSet<&str> = asked.iter().filter_map(|asked| asked.split(' ').next()).collect();
    assert_eq!(called, ACTIONS.iter().copied().collect());
    script.is_played_out();
}
