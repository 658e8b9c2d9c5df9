//! The wire of CVM's legacy endpoint, literally: forms out, both shapes of answers in.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;

use super::*;
use crate::provider::http::Door;
use crate::provider::tencent::legacy::Legacy;
use crate::provider::tencent::sign_v1::{Mac, Parameters, sign};
use crate::provider::{Api, Credentials};

fn opened(api: Api, answers: Answers) -> (Arc<dyn Provider>, Arc<Script>) {
    let script = Script::of(answers);
    let settings = Settings { api, ..settings(ProviderKind::TencentCvm) };
    (open(&settings, script.clone(), ManualClock::at(NOW), 1).unwrap(), script)
}

fn old(answers: Answers) -> (Arc<dyn Provider>, Arc<Script>) {
    opened(Api::Legacy, answers)
}

/// HTTP 200 with this flat answer.
fn flat(body: Value) -> std::result::Result<Response, TransportError> {
    answer(200, &[("content-type", "text/html")], &body.to_string())
}

/// A flat refusal.
fn number(code: i64) -> std::result::Result<Response, TransportError> {
    flat(json!({"code": code, "message": "no", "codeDesc": "No"}))
}

/// The parameters of a request, in the order in which they were sent.
fn sent(request: &Request) -> Parameters {
    let form =
        if request.method == "GET" { request.query.clone() } else { String::from_utf8(request.body.clone()).unwrap() };
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
    form.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}

fn find<'a>(parameters: &'a Parameters, name: &str) -> &'a str {
    let mut found = parameters.iter().filter(|(key, _)| key == name);
    let value = &found.next().unwrap_or_else(|| panic!("no {name} was sent")).1;
    assert!(found.next().is_none(), "{name} was sent twice");
    value
}

/// The action of each request and its own parameters. What is common to all is checked, and the signature.
fn calls(script: &Script) -> Vec<(String, BTreeMap<String, String>)> {
    script.is_played_out();
    let asked = script.asked.lock().unwrap();
    asked
        .iter()
        .map(|request| {
            assert_eq!(
                (request.origin.as_str(), request.path.as_str()),
                ("https://cvm.api.qcloud.com", "/v2/index.php")
            );
            let mut parameters = sent(request);
            let (last, signature) = parameters.pop().unwrap();
            assert_eq!(last, "Signature");
            let mac = if find(&parameters, "SignatureMethod") == "HmacSHA1" { Mac::Sha1 } else { Mac::Sha256 };
            let secret = "FAKEsecretKEY000000000000000000001";
            let host = "cvm.api.qcloud.com";
            assert_eq!(signature, sign(request.method, host, "/v2/index.php", &parameters, mac, secret));
            assert_eq!(find(&parameters, "Version"), "2017-03-12");
            assert_eq!(find(&parameters, "Region"), "ap-guangzhou");
            assert!(find(&parameters, "Nonce").parse::<i64>().unwrap() > 0);
            let action = find(&parameters, "Action").to_string();
            let common = ["Action", "Version", "Region", "Timestamp", "Nonce", "SecretId", "SignatureMethod"];
            (action, parameters.into_iter().filter(|(name, _)| !common.contains(&name.as_str())).collect())
        })
        .collect()
}

fn call(action: &str, parameters: &[(&str, &str)]) -> (String, BTreeMap<String, String>) {
    let own = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    (action.to_string(), own)
}

fn keys(token: Option<&str>) -> Credentials {
    let credentials = settings(ProviderKind::TencentCvm).credentials.at_hand().unwrap();
    Credentials { session_token: token.map(Into::into), ..(*credentials).clone() }
}

fn parts(endpoint: &str) -> Parts {
    let credentials = settings(ProviderKind::TencentCvm).credentials;
    let door = Door::new(Script::of([]), ManualClock::at(NOW), &BTreeMap::new(), credentials, 1);
    Parts { origin: crate::net::Origin::parse(endpoint).unwrap(), region: "ap-guangzhou".into(), door }
}

#[test]
fn a_call_is_a_signed_form() {
    let check = |mac: Mac, expect: &str| {
        let own = vec![("InstanceIds.1".to_string(), "ins-1".to_string())];
        let parts = parts("https://cvm.api.qcloud.com");
        let call = ("StartInstances", "2017-03-12");
        let request = Legacy::new(mac).request(&parts, &keys(None), call, &own, NOW.parse().unwrap(), 345_121 << 66);
        assert_eq!(
            (request.method, request.origin.as_str(), request.path.as_str(), request.query.as_str()),
            ("POST", "https://cvm.api.qcloud.com", "/v2/index.php", "")
        );
        let headers = [("host", "cvm.api.qcloud.com"), ("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(request.headers, headers.map(|(name, value)| (name.to_string(), value.to_string())));
        let common = "InstanceIds.1=ins-1&Action=StartInstances&Version=2017-03-12&Region=ap-guangzhou\
            &Timestamp=1766361600&Nonce=345122&SecretId=AKIDFAKE0000000000000000000000000001&SignatureMethod=";
        assert_eq!(String::from_utf8_lossy(&request.body), format!("{common}{expect}"));
    };
    // The signatures were computed apart, with Python's hmac and urlencode, from the scheme of FACTS 3.
    check(Mac::Sha256, "HmacSHA256&Signature=6eETwK9y0%2BM9lnOVaRKC7CUodaUJqW1lW%2BpuxMCMMsU%3D");
    check(Mac::Sha1, "HmacSHA1&Signature=sb9uYzYtWAXoaTkjpAvRiQ8HMD8%3D");
}

#[test]
fn a_token_and_a_port_are_signed_and_a_value_that_a_post_might_not_sign_goes_by_get() {
    let check = |value: &str, method: &str, headers: usize| {
        let own = vec![("Filters.1.Values.1".to_string(), value.to_string())];
        let (parts, keys) = (parts("http://127.0.0.1:8080"), keys(Some("token/with+chars=&%")));
        let call = ("DescribeInstances", "2017-03-12");
        let request = Legacy::new(Mac::Sha256).request(&parts, &keys, call, &own, NOW.parse().unwrap(), 7);
        assert_eq!((request.method, request.headers.len()), (method, headers));
        assert_eq!(request.body.is_empty(), method == "GET");
        let mut parameters = sent(&request);
        let (_, signature) = parameters.pop().unwrap();
        assert_eq!(find(&parameters, "Token"), "token/with+chars=&%");
        assert_eq!(find(&parameters, "Filters.1.Values.1"), value);
        let secret = "FAKEsecretKEY000000000000000000001";
        assert_eq!(signature, sign(method, "127.0.0.1:8080", "/v2/index.php", &parameters, Mac::Sha256, secret));
        assert!(!format!("{request:?}").contains("token/"), "{request:?}");
    };
    check("prod @ night", "POST", 2);
    check("@prod", "GET", 1);
}

#[tokio::test]
async fn every_change_sends_the_parameters_that_the_pages_describe_and_takes_either_shape() {
    let one = ids(&["ins-2", "ins-1", "ins-2"]);
    let key = KeyPairId::new("skey-1");
    let public = PublicKey::parse(LINE).unwrap();
    let line = public.to_openssh();
    let bound = [("InstanceIds.1", "ins-1"), ("InstanceIds.2", "ins-2"), ("KeyIds.1", "skey-1")];
    let plain = [("InstanceIds.1", "ins-1"), ("InstanceIds.2", "ins-2")];
    let stop = |force| [plain[0], plain[1], ("ForceStop", force), ("StoppedMode", "KEEP_CHARGING")];
    let expect = [
        call("ImportKeyPair", &[("KeyName", "rka_0123456789abcdef"), ("ProjectId", "0"), ("PublicKey", &line)]),
        call("DeleteKeyPairs", &[("KeyIds.1", "skey-1")]),
        call("AssociateInstancesKeyPairs", &bound),
        call("DisassociateInstancesKeyPairs", &bound),
        call("StopInstances", &stop("FALSE")),
        call("StopInstances", &stop("TRUE")),
        call("StartInstances", &plain),
        call("RebootInstances", &plain),
    ];
    let check =
        async |api: Api, good: &dyn Fn(Value) -> std::result::Result<Response, TransportError>, id: Option<&str>| {
            let import = good(json!({"KeyId": "skey-1"}));
            let (cloud, script) = opened(api, [vec![import], (0..7).map(|_| good(json!({}))).collect()].concat());
            assert_eq!(cloud.import_key_pair(&"rka_0123456789abcdef".into(), &public, before()).await, Ok(key.clone()));
            assert_eq!(cloud.delete_key_pair(&key, before()).await, Ok(()));
            let accepted = Accepted { request_id: id.map(str::to_string), refused: vec![] };
            assert_eq!(cloud.bind(&key, &one, before()).await, Ok(accepted));
            cloud.unbind(&key, &one, before()).await.unwrap();
            cloud.power(PowerChange::Stop { force: false }, &one, before()).await.unwrap();
            cloud.power(PowerChange::Stop { force: true }, &one, before()).await.unwrap();
            cloud.power(PowerChange::Start, &one, before()).await.unwrap();
            cloud.power(PowerChange::Reboot, &one, before()).await.unwrap();
            assert_eq!(calls(&script), expect);
            let asked = script.asked.lock().unwrap();
            assert!(asked.iter().all(|request| request.method == "POST"));
        };
    let with = |code: Value, mut body: Value| {
        body.as_object_mut().unwrap().extend([("code".to_string(), code), ("message".to_string(), json!(""))]);
        flat(body)
    };
    check(Api::Legacy, &well, Some("r-1")).await;
    check(Api::LegacySha1, &well, Some("r-1")).await;
    // No page says that a flat answer names its request: without a name the engine goes by what it sees.
    check(Api::Legacy, &|body| with(json!(0), body), None).await;
    check(Api::Legacy, &|body| with(json!("0"), body), None).await;
    let named = |mut body: Value| {
        body["RequestId"] = json!("r-2");
        with(json!(0), body)
    };
    check(Api::LegacySha1, &named, Some("r-2")).await;
}

#[tokio::test]
async fn looks_are_flattened_and_read_to_the_last_page_in_either_shape() {
    let all = |shape: &str| {
        let page = |names: &[&str]| {
            let items: Vec<Value> = names
                .iter()
                .map(|id| json!({"InstanceId": id, "InstanceState": "RUNNING", "Tags": [{"Key": "env", "Value": "prod"}]}))
                .collect();
            let body = json!({"TotalCount": 3, "InstanceSet": items});
            if shape == "flat" {
                flat(json!({"code": 0, "TotalCount": 3, "InstanceSet": body["InstanceSet"]}))
            } else {
                well(body)
            }
        };
        vec![page(&["a", "b"]), page(&["b", "c"])]
    };
    for shape in ["flat", "wrapped"] {
        let (cloud, script) = old(all(shape));
        let tags = [("env".to_string(), "prod".to_string())].into();
        assert_eq!(seen_ids(&cloud.instances(&Select::Tags(tags)).await.unwrap()), ["a", "b", "c"], "{shape}");
        let page = |offset: &'static str| {
            let filter = [("Filters.1.Name", "tag:env"), ("Filters.1.Values.1", "prod")];
            call("DescribeInstances", &[filter[0], filter[1], ("Offset", offset), ("Limit", "100")])
        };
        assert_eq!(calls(&script), [page("0"), page("1")], "each page begins with the last of the page before");
    }

    let pair = json!({"KeyId": "skey-1", "KeyName": "rka_1", "PublicKey": LINE, "AssociatedInstanceIds": ["a"]});
    let pairs = || well(json!({"TotalCount": 1, "KeyPairSet": [pair]}));
    let bound = json!([{"InstanceId": "a", "InstanceState": "STOPPED", "LoginSettings": {"KeyIds": ["skey-1"]}}]);
    let (cloud, script) = old(vec![pairs(), pairs(), well(json!({"TotalCount": 1, "InstanceSet": bound}))]);
    let found = cloud.find_key_pair(&"rka_1".into()).await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.bound, found.public_key), ("skey-1", Some(1), PublicKey::parse(LINE).ok()));
    assert_eq!(seen_ids(&cloud.instances(&Select::BoundTo("skey-1".into())).await.unwrap()), ["a"]);
    let filter = [("Filters.1.Name", "key-name"), ("Filters.1.Values.1", "rka_1"), ("Offset", "0"), ("Limit", "100")];
    assert_eq!(
        calls(&script),
        [
            call("DescribeKeyPairs", &filter),
            call("DescribeKeyPairs", &[("KeyIds.1", "skey-1"), ("Limit", "100")]),
            call("DescribeInstances", &[("InstanceIds.1", "a"), ("Limit", "100")]),
        ]
    );
}

#[tokio::test]
async fn no_attempt_has_the_nonce_or_the_signature_of_another() {
    for api in [Api::Legacy, Api::LegacySha1] {
        let lost = || Err(TransportError::NotSent("refused".into()));
        let throttled = [refused("RequestLimitExceeded"), number(4400), lost(), number(4200), number(4400)];
        let mut answers: Answers = throttled.into_iter().chain([well(json!({}))]).collect();
        // The same look over and over, within one second of a clock that stands still.
        answers.extend((0..200).map(|_| page(0, &[])));
        let (cloud, script) = opened(api, answers);
        cloud.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap();
        for _ in 0..200 {
            cloud.instances(&Select::All).await.unwrap();
        }
        assert_eq!(calls(&script).len(), 206);
        let asked = script.asked.lock().unwrap();
        let each = |name: &str| asked.iter().map(|one| find(&sent(one), name).to_string()).collect::<BTreeSet<_>>();
        assert_eq!((each("Nonce").len(), each("Signature").len()), (206, 206), "{api:?}");
        // Each attempt of the change has the time at which it was sent.
        let times: Vec<String> = asked[..6].iter().map(|one| find(&sent(one), "Timestamp").to_string()).collect();
        assert!(times.is_sorted() && times.first() < times.last(), "{times:?}");
    }
}

#[tokio::test]
async fn a_replay_is_no_proof_that_a_change_was_not_done() {
    let (cloud, script) = old(vec![number(4500)]);
    let error = cloud.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown));
    script.is_played_out();
    // A look is asked again, by another nonce.
    let (cloud, script) = old(vec![number(4500), page(0, &[])]);
    assert_eq!(cloud.instances(&Select::All).await, Ok(vec![]));
    assert_eq!(calls(&script).len(), 2);
}

#[tokio::test]
async fn a_flat_refusal_is_judged_by_its_number_and_shows_no_secret() {
    let check = async |code: Value, kind: Kind, effect: Effect, blame: Blame, code_text: &str| {
        let body = json!({"code": code, "message": "SecretId AKIDFAKE0000000000000000000000000001 may not"});
        let (cloud, _) = old(vec![flat(body.clone()), flat(body)]);
        let error = cloud.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap_err();
        let message = "SecretId [secret] may not".to_string();
        let (action, code) = ("AssociateInstancesKeyPairs".to_string(), code_text.to_string());
        let expect = Error { kind, effect, blame, action, code, message, request_id: None, retry_after: None };
        assert_eq!(error, expect);
    };
    check(json!(4000), Kind::Invalid, Effect::NotDone, Blame::Request, "4000").await;
    check(json!("4100"), Kind::Denied, Effect::NotDone, Blame::Account, "4100").await;
    check(json!(4200), Kind::Denied, Effect::NotDone, Blame::Account, "4200").await;
    check(json!(5000), Kind::Unsupported, Effect::NotDone, Blame::Instance, "5000").await;
    check(json!(5100), Kind::Unavailable, Effect::Unknown, Blame::Request, "5100").await;
    check(json!(5200), Kind::Quota, Effect::NotDone, Blame::Account, "5200").await;
    check(json!(5400), Kind::Unavailable, Effect::Unknown, Blame::Request, "5400").await;
    // The message may be absent or no text.
    let (cloud, _) = old(vec![flat(json!({"code": 4300})), flat(json!({"code": 4300, "message": [1]}))]);
    for _ in 0..2 {
        let error = cloud.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::Denied, ""));
    }
    // Wrapped refusals are the current API's.
    let (cloud, _) = old(vec![refused("InvalidInstanceId.NotFound")]);
    let error = cloud.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.blame, error.request_id.as_deref()), (Kind::NotFound, Blame::Instance, Some("r-1")));
}

#[tokio::test]
async fn a_flat_missing_resource_is_no_instance_that_is_gone_and_no_pair_without_instances() {
    let (cloud, script) = old(vec![number(5000)]);
    let error = cloud.instances(&Select::Ids(ids(&["ins-1"]))).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Unsupported, Effect::NotDone));
    script.is_played_out();
    let (cloud, script) = old(vec![number(5000)]);
    assert_eq!(cloud.instances(&Select::BoundTo("skey-1".into())).await.unwrap_err().kind, Kind::Invalid);
    script.is_played_out();
    let (cloud, _) = old(vec![number(5000)]);
    assert_eq!(cloud.delete_key_pair(&"skey-1".into(), before()).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn an_answer_of_neither_shape_or_of_both_leaves_the_outcome_open() {
    for body in [
        "".to_string(),
        "<html>".to_string(),
        "[]".to_string(),
        "{}".to_string(),
        "null".to_string(),
        "[".repeat(100_000),
        json!({"message": "ok"}).to_string(),
        json!({"code": null, "message": "ok"}).to_string(),
        json!({"code": "", "message": "ok"}).to_string(),
        json!({"code": [0], "message": "ok"}).to_string(),
        json!({"code": 0, "Response": {"RequestId": "r"}}).to_string(),
        json!({"code": 4100, "Response": {"RequestId": "r"}}).to_string(),
        json!({"code": 0, "Error": "x"}).to_string(),
        json!({"Code": 0}).to_string(),
        json!({ "Response": null }).to_string(),
        json!({ "Response": {} }).to_string(),
        json!({ "Response": {"RequestId": 7} }).to_string(),
        json!({ "Response": {"code": 0, "message": ""} }).to_string(),
    ] {
        let (cloud, script) = old(vec![answer(200, &[], &body)]);
        let error = cloud.bind(&"k".into(), &ids(&["i"]), before()).await.unwrap_err();
        let short: String = body.chars().take(60).collect();
        assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown), "{short}");
        script.is_played_out();
    }
    for status in [404, 429, 500, 503] {
        let (cloud, _) = old(vec![answer(status, &[], r#"{"code":0,"message":""}"#)]);
        let error = cloud.bind(&"k".into(), &ids(&["i"]), before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown), "{status}");
    }
    // An import that does not tell its id, and listings in the names of the oldest requests.
    let (cloud, _) = old(vec![flat(json!({"code": 0, "message": "", "data": {"keyId": "skey-1"}}))]);
    let error = cloud.import_key_pair(&"n".into(), &PublicKey::parse(LINE).unwrap(), before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
    for body in [
        json!({"code": 0, "message": ""}),
        json!({"code": 0, "totalCount": 0, "instanceSet": []}),
        json!({"code": 0, "data": {"totalCount": 0, "sshSet": []}}),
    ] {
        let (cloud, script) = old((0..6).map(|_| flat(body.clone())).collect());
        assert_eq!(cloud.instances(&Select::All).await.unwrap_err().kind, Kind::Protocol, "{body}");
        assert_eq!(cloud.key_pairs("rk").await.unwrap_err().kind, Kind::Protocol, "{body}");
        script.is_played_out();
    }
}

#[tokio::test]
async fn the_current_api_takes_no_flat_answer() {
    let (cloud, _) = cvm(vec![flat(json!({"code": 0, "message": "", "RequestId": "r"}))]);
    let error = cloud.bind(&"k".into(), &ids(&["i"]), before()).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
}
