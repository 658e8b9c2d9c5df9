//! The wire, literally: what is asked for each method of the trait, and what each answer is read as.

use std::sync::Arc;

use super::*;
use crate::model::Image;
use crate::model::ProviderKind;
use crate::provider::http::door::tests::{ManualClock, Script, answer};
use crate::provider::http::{Request, Response, TransportError};
use crate::provider::{Blame, Effect, Error, Kind, Operation, Power, Settings, open};

type Answers = Vec<std::result::Result<Response, TransportError>>;

const NOW: &str = "2025-12-22T00:00:00Z";
const LINE: &str = concat!(
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDrzAkg2RGtO8C//5v3s3y62JhbiqKJWc1kxQKaTQCmlxTYjf5mbZtWlyKFDyjE/PItE",
    "lkxkBDxVNAZAM51GPzxKx1TtIK/m/T2ymagQOgN9YaLKvPN7oIARf74vkv1a9B5AesQTJplPlVFX+cYI+oGUZgC9MGfW1aDLOFjG0b8dp",
    "RZeykTAHbC/D8X4kEKTdN0Nq4R3S1cYzxQlJ6e4h321aNiENNmUzS4ymCb8Yq4wW9WfAKnjZjTgDL2VnZDcRXCXZxqQodV7AsVvwN9puW",
    "9S+Q9i+uQMRSDvH5RHCHhqyVnTYORKe8YCWE4hCvr2qzKDTpAXcxp4gXo8IRU+dzb"
);

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod legacy;

fn settings(kind: ProviderKind) -> Settings {
    Settings {
        provider: kind,
        endpoint: None,
        region: "ap-guangzhou".into(),
        credentials: crate::provider::Credentials {
            access_key_id: "AKIDFAKE0000000000000000000000000001".to_string(),
            access_key_secret: "FAKEsecretKEY000000000000000000001".into(),
            session_token: None,
        }
        .into(),
        rates: Default::default(),
        api: Default::default(),
    }
}

/// A provider of this kind on a transport that gives these answers.
fn provider(kind: ProviderKind, answers: Answers) -> (Arc<dyn Provider>, Arc<Script>) {
    let script = Script::of(answers);
    (open(&settings(kind), script.clone(), ManualClock::at(NOW), 1).unwrap(), script)
}

fn lighthouse(answers: Answers) -> (Arc<dyn Provider>, Arc<Script>) {
    provider(ProviderKind::TencentLighthouse, answers)
}

fn cvm(answers: Answers) -> (Arc<dyn Provider>, Arc<Script>) {
    provider(ProviderKind::TencentCvm, answers)
}

/// HTTP 200 with this `Response`.
fn well(response: Value) -> std::result::Result<Response, TransportError> {
    let mut response = response;
    if response.get("RequestId").is_none() {
        response["RequestId"] = json!("r-1");
    }
    answer(200, &[("content-type", "application/json")], &json!({ "Response": response }).to_string())
}

/// HTTP 200 with this error.
fn refused(code: &str) -> std::result::Result<Response, TransportError> {
    well(json!({"Error": {"Code": code, "Message": "no"}}))
}

fn page(total: usize, ids: &[&str]) -> std::result::Result<Response, TransportError> {
    let items: Vec<Value> = ids.iter().map(|id| json!({"InstanceId": id, "InstanceState": "RUNNING"})).collect();
    well(json!({"TotalCount": total, "InstanceSet": items}))
}

fn ids(texts: &[&str]) -> Vec<InstanceId> {
    texts.iter().map(|text| InstanceId::new(*text)).collect()
}

fn before() -> Timestamp {
    "2025-12-22T00:00:10Z".parse().unwrap()
}

/// The action and body of each request.
fn asked(script: &Script) -> Vec<(String, Value)> {
    script.is_played_out();
    let header = |request: &Request, name: &str| {
        request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap()
    };
    let asked = script.asked.lock().unwrap();
    asked.iter().map(|one| (header(one, "x-tc-action"), serde_json::from_slice(&one.body).unwrap())).collect()
}

fn seen_ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|seen| seen.id.as_str()).collect()
}

#[tokio::test]
async fn a_call_is_put_signed_and_headed_as_the_vendor_does() {
    let (cloud, script) = lighthouse(vec![well(json!({}))]);
    cloud.power(PowerChange::Start, &ids(&["lhins-1"]), before()).await.unwrap();
    let asked = script.asked.lock().unwrap();
    let request = &asked[0];
    let body = r#"{"InstanceIds":["lhins-1"]}"#;
    assert_eq!(
        (request.method, request.origin.as_str(), request.path.as_str(), request.query.as_str()),
        ("POST", "https://lighthouse.tencentcloudapi.com", "/", "")
    );
    assert_eq!(String::from_utf8_lossy(&request.body), body);
    let headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // The signature was computed apart, with Python's hmac, from the scheme of FACTS 2.3.
    let authorization = "TC3-HMAC-SHA256 Credential=AKIDFAKE0000000000000000000000000001/2025-12-22/lighthouse/tc3_request, \
        SignedHeaders=content-type;host, Signature=5b9777d043861dc359d41e1269eaa2a4c4ffb6d25bf9dee73e3ac48f596dae88";
    assert_eq!(
        headers,
        [
            ("host", "lighthouse.tencentcloudapi.com"),
            ("content-type", "application/json"),
            ("x-tc-action", "StartInstances"),
            ("x-tc-version", "2020-03-24"),
            ("x-tc-timestamp", "1766361600"),
            ("x-tc-region", "ap-guangzhou"),
            ("x-tc-language", "en-US"),
            ("authorization", authorization),
        ]
    );
}

#[tokio::test]
async fn a_session_token_travels_in_its_header() {
    let script = Script::of([page(0, &[])]);
    let settings = Settings {
        provider: ProviderKind::TencentCvm,
        endpoint: Some("http://127.0.0.1:8080".to_string()),
        region: "ap-guangzhou".into(),
        credentials: crate::provider::Credentials {
            access_key_id: "AKIDFAKE".to_string(),
            access_key_secret: "FAKE".into(),
            session_token: Some("token/with+chars=".into()),
        }
        .into(),
        rates: Default::default(),
        api: Default::default(),
    };
    let cloud = open(&settings, script.clone(), ManualClock::at(NOW), 1).unwrap();
    cloud.instances(&Select::All).await.unwrap();
    let asked = script.asked.lock().unwrap();
    assert!(asked[0].headers.contains(&("x-tc-token".to_string(), "token/with+chars=".to_string())));
    assert!(asked[0].headers.contains(&("host".to_string(), "127.0.0.1:8080".to_string())), "the port is signed");
    let authorization = &asked[0].headers.last().unwrap().1;
    assert!(authorization.contains("/cvm/tc3_request, SignedHeaders=content-type;host,"), "{authorization}");
}

#[tokio::test]
async fn every_change_sends_the_body_that_the_pages_describe() {
    let one = ids(&["i-2", "i-1", "i-2"]);
    let key = KeyPairId::new("key-1");
    let public = PublicKey::parse(LINE).unwrap();
    let name = KeyPairName::new("rka_0123456789abcdef");
    let check = async |kind: ProviderKind, expect: [(&str, Value); 8]| {
        let (cloud, script) = provider(
            kind,
            vec![
                well(json!({"KeyId": "key-1"})),
                well(json!({})),
                well(json!({"RequestId": "r-7"})),
                well(json!({})),
                well(json!({})),
                well(json!({})),
                well(json!({})),
                well(json!({})),
            ],
        );
        assert_eq!(cloud.import_key_pair(&name, &public, before()).await, Ok(key.clone()));
        assert_eq!(cloud.delete_key_pair(&key, before()).await, Ok(()));
        let accepted = Accepted { request_id: Some("r-7".to_string()), refused: vec![] };
        assert_eq!(cloud.bind(&key, &one, before()).await, Ok(accepted));
        cloud.unbind(&key, &one, before()).await.unwrap();
        cloud.power(PowerChange::Stop { force: false }, &one, before()).await.unwrap();
        cloud.power(PowerChange::Stop { force: true }, &one, before()).await.unwrap();
        cloud.power(PowerChange::Start, &one, before()).await.unwrap();
        cloud.power(PowerChange::Reboot, &one, before()).await.unwrap();
        assert_eq!(asked(&script), expect.map(|(action, body)| (action.to_string(), body)));
    };
    let line = public.to_openssh();
    let bound = json!({"InstanceIds": ["i-1", "i-2"], "KeyIds": ["key-1"]});
    let plain = json!({"InstanceIds": ["i-1", "i-2"]});
    check(
        ProviderKind::TencentLighthouse,
        [
            ("ImportKeyPair", json!({"KeyName": "rka_0123456789abcdef", "PublicKey": line})),
            ("DeleteKeyPairs", json!({"KeyIds": ["key-1"]})),
            ("AssociateInstancesKeyPairs", bound.clone()),
            ("DisassociateInstancesKeyPairs", bound.clone()),
            ("StopInstances", json!({"InstanceIds": ["i-1", "i-2"], "StopType": "SOFT_FIRST"})),
            ("StopInstances", json!({"InstanceIds": ["i-1", "i-2"], "StopType": "HARD"})),
            ("StartInstances", plain.clone()),
            ("RebootInstances", plain.clone()),
        ],
    )
    .await;
    let stop = |kind: &str| json!({"InstanceIds": ["i-1", "i-2"], "StopType": kind, "StoppedMode": "KEEP_CHARGING"});
    check(
        ProviderKind::TencentCvm,
        [
            ("ImportKeyPair", json!({"KeyName": "rka_0123456789abcdef", "ProjectId": 0, "PublicKey": line})),
            ("DeleteKeyPairs", json!({"KeyIds": ["key-1"]})),
            ("AssociateInstancesKeyPairs", bound.clone()),
            ("DisassociateInstancesKeyPairs", bound),
            ("StopInstances", stop("SOFT")),
            ("StopInstances", stop("SOFT_FIRST")),
            ("StartInstances", plain.clone()),
            ("RebootInstances", plain),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_instance_is_read_field_by_field() {
    let (cloud, _) = lighthouse(vec![well(json!({"TotalCount": 1, "InstanceSet": [{
        "InstanceId": "lhins-1", "InstanceName": "web", "InstanceState": "STOPPED", "Zone": "ap-guangzhou-3", "BlueprintId": "lhbp-1",
        "LoginSettings": {"KeyIds": ["lhkp-1"]}, "PlatformType": "LINUX_UNIX", "InstanceRestrictState": "NORMAL",
        "LatestOperation": "StopInstances", "LatestOperationState": "SUCCESS", "LatestOperationRequestId": "r-9",
        "PrivateAddresses": ["10.0.0.7", "10.0.0.8"], "PublicAddresses": null, "Tags": [{"Key": "role", "Value": "web"}, {"Key": "bare", "Value": null}]
    }]}))]);
    let expect = Instance {
        id: "lhins-1".into(),
        name: "web".to_string(),
        power: Power::Stopped,
        state: "STOPPED".to_string(),
        keys: vec!["lhkp-1".into()],
        boot: None,
        operation: Some(Operation { request_id: Some("r-9".to_string()), running: false, failed: false }),
        unfit: None,
        hazards: Default::default(),
        tags: [("role", "web"), ("bare", "")].map(|(key, value)| (key.to_string(), value.to_string())).into(),
        zone: Some("ap-guangzhou-3".to_string()),
        image: Some(Image { id: "lhbp-1".to_string(), reset: None }),
        private_address: Some("10.0.0.7".parse().unwrap()),
        public_address: None,
    };
    assert_eq!(cloud.instances(&Select::All).await, Ok(vec![expect]));

    let (cloud, _) = cvm(vec![well(json!({"TotalCount": 1, "InstanceSet": [{
        "InstanceId": "ins-1", "InstanceName": null, "InstanceState": "RUNNING", "Placement": {"Zone": "z"},
        "LoginSettings": {"KeyIds": null}, "OsName": "Windows Server 2022", "RestrictState": "NORMAL",
        "LatestOperation": "ResetInstance", "LatestOperationState": null, "LatestOperationRequestId": "r-7", "Tags": null,
        "ImageId": "img-1", "PrivateIpAddresses": ["172.16.0.2"], "PublicIpAddresses": ["203.0.113.9"]
    }]}))]);
    let seen = cloud.instances(&Select::All).await.unwrap().remove(0);
    assert_eq!((seen.keys.len(), seen.unfit.as_deref()), (0, Some("Windows")));
    assert_eq!(seen.image, Some(Image { id: "img-1".to_string(), reset: Some("r-7".to_string()) }));
    assert_eq!((seen.zone.as_deref(), seen.name.as_str()), (Some("z"), ""));
    let addresses = [seen.private_address, seen.public_address].map(|address| address.unwrap().to_string());
    assert_eq!(addresses, ["172.16.0.2", "203.0.113.9"]);
}

#[tokio::test]
async fn lighthouse_foretells_lasting_refusals_and_the_accounts_quota() {
    let denial = |action: &str, code: &str| json!({"Action": action, "Code": code, "Message": "m"});
    let passing = denial("StartInstances", "UnsupportedOperation.InvalidInstanceState");
    let busy = denial("AssociateInstancesKeyPairs", "OperationDenied.InstanceOperationInProgress");
    let expired = denial("StartInstances", "UnsupportedOperation.InstanceExpired");
    let other = denial("ResetInstance", "UnsupportedOperation.InstanceExpired");
    let (cloud, script) = lighthouse(vec![
        well(json!({"InstanceDeniedActionSet": [
            {"InstanceId": "lhins-1", "DeniedActions": [passing, busy, other]},
            {"InstanceId": "lhins-2", "DeniedActions": [passing, expired]},
            {"InstanceId": "lhins-3", "DeniedActions": null},
            {"InstanceId": "lhins-stranger", "DeniedActions": [expired]},
        ]})),
        well(json!({"GeneralResourceQuotaSet": [
            {"ResourceName": "USER_KEY_PAIR", "ResourceQuotaAvailable": 3, "ResourceQuotaTotal": 20},
        ]})),
        well(json!({"GeneralResourceQuotaSet": []})),
    ]);
    let denied = cloud.denied(&ids(&["lhins-2", "lhins-1", "lhins-3", "lhins-1"])).await.unwrap();
    let told: Vec<_> = denied.iter().map(|(id, error)| (id.as_str(), error.action.as_str(), error.kind)).collect();
    assert_eq!(told, [("lhins-2", "StartInstances", Kind::Unsupported)]);
    assert_eq!(cloud.key_pairs_max().await, Ok(Some(20)));
    assert_eq!(cloud.key_pairs_max().await.unwrap_err().kind, Kind::Protocol);
    let quotas = || ("DescribeGeneralResourceQuotas".to_string(), json!({"ResourceNames": ["USER_KEY_PAIR"]}));
    let denials = json!({"InstanceIds": ["lhins-1", "lhins-2", "lhins-3"]});
    assert_eq!(asked(&script), [("DescribeInstancesDeniedActions".to_string(), denials), quotas(), quotas()]);
    // CVM has no such questions: nothing is sent.
    let (cloud, script) = cvm(vec![]);
    assert_eq!((cloud.denied(&ids(&["ins-1"])).await, cloud.key_pairs_max().await), (Ok(vec![]), Ok(None)));
    assert_eq!(cloud.rehearse(PowerChange::Start, &ids(&["ins-1"])).await, Ok(None));
    assert_eq!(asked(&script), []);
}

#[tokio::test]
async fn what_lighthouse_shows_of_disks_is_no_hazard_and_what_cvm_shows_is() {
    let shown = || {
        well(json!({"TotalCount": 1, "InstanceSet": [{
            "InstanceId": "i-1", "InstanceState": "RUNNING", "SystemDisk": {"DiskType": "LOCAL_SSD"}
        }]}))
    };
    let (cloud, _) = lighthouse(vec![shown()]);
    assert!(cloud.instances(&Select::All).await.unwrap()[0].hazards.is_empty());
    let (cloud, _) = cvm(vec![shown()]);
    assert_eq!(cloud.instances(&Select::All).await.unwrap()[0].hazards, [crate::provider::Hazard::LocalDisk].into());
}

#[tokio::test]
async fn tags_narrow_there_and_decide_here() {
    let tagged = |id: &str, tags: &[(&str, &str)]| {
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        json!({"InstanceId": id, "InstanceState": "RUNNING", "Tags": tags})
    };
    let (cloud, script) = cvm(vec![well(json!({"TotalCount": 3, "InstanceSet": [
        tagged("ins-1", &[("env", "prod"), ("role", "web"), ("more", "x")]),
        tagged("ins-2", &[("env", "prod")]),
        tagged("ins-3", &[("env", "prod"), ("role", "WEB")]),
    ]}))]);
    let tags = [("role", "web"), ("env", "prod")].map(|(key, value)| (key.to_string(), value.to_string()));
    let seen = cloud.instances(&Select::Tags(tags.into())).await.unwrap();
    assert_eq!(seen_ids(&seen), ["ins-1"]);
    let filters = json!([{"Name": "tag:env", "Values": ["prod"]}, {"Name": "tag:role", "Values": ["web"]}]);
    assert_eq!(
        asked(&script),
        [("DescribeInstances".to_string(), json!({"Filters": filters, "Offset": 0, "Limit": 100}))]
    );

    // More tags than the cloud takes filters: the first ten narrow, all are compared.
    let many: Vec<(String, String)> = (0..12).map(|n| (format!("k{n:02}"), "v".to_string())).collect();
    let all: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let (cloud, script) =
        cvm(vec![well(json!({"TotalCount": 2, "InstanceSet": [tagged("ins-1", &all), tagged("ins-2", &all[..11])]}))]);
    let seen = cloud.instances(&Select::Tags(many.iter().cloned().collect())).await.unwrap();
    assert_eq!(seen_ids(&seen), ["ins-1"]);
    assert_eq!(asked(&script)[0].1["Filters"].as_array().unwrap().len(), 10);

    // A tag key that the account does not know selects nobody.
    let (cloud, _) = cvm(vec![refused("InvalidParameterValue.TagKeyNotFound")]);
    assert_eq!(cloud.instances(&Select::Tags(many.into_iter().collect())).await, Ok(vec![]));
}

#[tokio::test]
async fn a_listing_goes_to_its_last_page_and_names_each_once() {
    let names: Vec<String> = (0..250).map(|n| format!("ins-{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (cloud, script) = cvm(vec![page(250, &names[..100]), page(250, &names[99..199]), page(250, &names[198..])]);
    assert_eq!(seen_ids(&cloud.instances(&Select::All).await.unwrap()), names);
    let offsets: Vec<Value> = asked(&script).iter().map(|(_, body)| body["Offset"].clone()).collect();
    assert_eq!(offsets, [0, 99, 198], "each page begins with the last of the page before");
    assert!(asked(&script)[0].1.get("Filters").is_none());
}

#[tokio::test]
async fn a_listing_that_moves_is_begun_again_within_bounds() {
    // The total moves; then one goes and one comes, and the pages do not join; then one comes twice; then it stands still.
    let (cloud, script) = lighthouse(vec![
        page(3, &["a", "b"]),
        page(4, &["b", "c", "d"]),
        page(4, &["a", "b"]),
        page(4, &["c", "d", "e"]),
        page(4, &["a", "b"]),
        page(4, &["b", "a", "c"]),
        page(4, &["a", "b"]),
        page(4, &["b", "c", "d"]),
    ]);
    assert_eq!(seen_ids(&cloud.instances(&Select::All).await.unwrap()), ["a", "b", "c", "d"]);
    script.is_played_out();

    // Fewer than promised, for ever: an error, never a partial listing.
    let (cloud, script) = lighthouse((0..10).map(|n| page(3, if n % 2 == 0 { &["a", "b"] } else { &[] })).collect());
    let error = cloud.instances(&Select::All).await.unwrap_err();
    assert_eq!((error.kind, error.effect, error.code.as_str()), (Kind::Unavailable, Effect::NotDone, "moving"));
    script.is_played_out();
}

#[tokio::test]
async fn ids_are_asked_for_by_the_hundred_without_filters() {
    let names: Vec<String> = (0..150).map(|n| format!("ins-{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (cloud, script) = cvm(vec![page(100, &names[..100]), page(50, &names[100..])]);
    let twice: Vec<&str> = names.iter().chain(&names).copied().collect();
    assert_eq!(seen_ids(&cloud.instances(&Select::Ids(ids(&twice))).await.unwrap()), names);
    let asked = asked(&script);
    assert_eq!(asked[0].1, json!({"InstanceIds": &names[..100], "Limit": 100}));
    assert_eq!(asked[1].1, json!({"InstanceIds": &names[100..], "Limit": 100}));

    let (cloud, script) = cvm(vec![]);
    assert_eq!(cloud.instances(&Select::Ids(vec![])).await, Ok(vec![]));
    script.is_played_out();
}

#[tokio::test]
async fn an_unknown_id_alone_is_missing_from_the_answer() {
    let gone = || refused("InvalidInstanceId.NotFound");
    let (cloud, script) = cvm(vec![gone(), page(2, &["a", "b"]), gone(), gone(), page(1, &["d"])]);
    let seen = cloud.instances(&Select::Ids(ids(&["a", "b", "c", "d"]))).await.unwrap();
    assert_eq!(seen_ids(&seen), ["a", "b", "d"]);
    let chunks: Vec<Value> = asked(&script).into_iter().map(|(_, body)| body["InstanceIds"].clone()).collect();
    assert_eq!(chunks, [json!(["a", "b", "c", "d"]), json!(["a", "b"]), json!(["c", "d"]), json!(["c"]), json!(["d"])]);

    // The cloud may as well leave it out by itself, or show one that nobody asked for.
    let (cloud, _) = cvm(vec![page(2, &["a", "stranger"])]);
    assert_eq!(seen_ids(&cloud.instances(&Select::Ids(ids(&["a", "b"]))).await.unwrap()), ["a"]);

    // Any other refusal of one instance is no sign that it is gone.
    let (cloud, _) = cvm(vec![refused("UnsupportedOperation.New")]);
    let error = cloud.instances(&Select::Ids(ids(&["a"]))).await.unwrap_err();
    assert_eq!((error.kind, error.blame), (Kind::Unsupported, Blame::Instance));
}

#[tokio::test]
async fn who_hangs_on_a_pair_is_told_by_the_pair_and_by_the_instances() {
    let pair = json!({"KeyId": "k-1", "KeyName": "n", "PublicKey": "x", "AssociatedInstanceIds": ["a", "b", "c"]});
    let bound =
        |id: &str, key: &str| json!({"InstanceId": id, "InstanceState": "RUNNING", "LoginSettings": {"KeyIds": [key]}});
    let (cloud, script) = lighthouse(vec![
        well(json!({"TotalCount": 1, "KeyPairSet": [pair]})),
        well(json!({"TotalCount": 2, "InstanceSet": [bound("a", "k-1"), bound("b", "k-2")]})),
    ]);
    let seen = cloud.instances(&Select::BoundTo("k-1".into())).await.unwrap();
    assert_eq!(seen_ids(&seen), ["a"]);
    assert_eq!(
        asked(&script),
        [
            ("DescribeKeyPairs".to_string(), json!({"KeyIds": ["k-1"], "Limit": 100})),
            ("DescribeInstances".to_string(), json!({"InstanceIds": ["a", "b", "c"], "Limit": 100})),
        ]
    );
    for code in ["ResourceNotFound.KeyIdNotFound", "InvalidKeyPairId.NotFound"] {
        let (cloud, _) = lighthouse(vec![refused(code)]);
        assert_eq!(cloud.instances(&Select::BoundTo("k-1".into())).await, Ok(vec![]), "{code}");
    }
}

#[tokio::test]
async fn key_pairs_are_matched_here_because_the_filter_is_fuzzy() {
    let pair =
        |id: &str, name: &str| json!({"KeyId": id, "KeyName": name, "PublicKey": LINE, "AssociatedInstanceIds": []});
    let set =
        || well(json!({"TotalCount": 3, "KeyPairSet": [pair("1", "rka_1x"), pair("2", "rka_1"), pair("3", "xrka_1")]}));
    let (cloud, script) = lighthouse(vec![set(), set(), set()]);
    let found = cloud.find_key_pair(&"rka_1".into()).await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.bound), ("2", Some(0)));
    assert_eq!(found.public_key, PublicKey::parse(LINE).ok());
    assert_eq!(cloud.find_key_pair(&"rka".into()).await, Ok(None));
    let pairs = cloud.key_pairs("rka_").await.unwrap();
    assert_eq!(pairs.iter().map(|pair| pair.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let asked = asked(&script);
    let filters = json!([{"Name": "key-name", "Values": ["rka_1"]}]);
    assert_eq!(asked[0], ("DescribeKeyPairs".to_string(), json!({"Filters": filters, "Offset": 0, "Limit": 100})));
    assert_eq!(asked[2], ("DescribeKeyPairs".to_string(), json!({"Offset": 0, "Limit": 100})));
}

async fn bind(answers: Answers) -> Error {
    let (cloud, script) = lighthouse(answers);
    let error = cloud.bind(&"k".into(), &ids(&["i"]), before()).await.unwrap_err();
    script.is_played_out();
    error
}

#[tokio::test]
async fn rubbish_is_a_protocol_error_of_unknown_outcome_and_only_a_read_is_repeated() {
    let id = json!({"RequestId": "r"});
    for body in [
        "".to_string(),
        "<html><body>502</body></html>".to_string(),
        "{\"Response\":{\"RequestId\":\"r".to_string(),
        "[]".to_string(),
        "{}".to_string(),
        "null".to_string(),
        json!({ "Response": null }).to_string(),
        json!({ "Response": [] }).to_string(),
        json!({ "Response": {} }).to_string(),
        json!({ "Response": {"RequestId": ""} }).to_string(),
        json!({ "Response": {"RequestId": 7} }).to_string(),
        json!({ "Response": {"Error": "x", "RequestId": "r"} }).to_string(),
        json!({ "Response": {"Error": {"Message": "x"}, "RequestId": "r"} }).to_string(),
        json!({ "response": id }).to_string(),
        "[".repeat(100_000),
    ] {
        let error = bind(vec![answer(200, &[], &body)]).await;
        let short: String = body.chars().take(60).collect();
        assert_eq!(
            (error.kind, error.effect, error.blame),
            (Kind::Protocol, Effect::Unknown, Blame::Request),
            "{short}"
        );
    }
    let error = bind(vec![answer(302, &[("location", "https://elsewhere.example/")], "")]).await;
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));
    let error = bind(vec![Err(TransportError::TooLarge)]).await;
    assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown));

    for response in [
        json!({"TotalCount": "many", "InstanceSet": []}),
        json!({"TotalCount": -1, "InstanceSet": []}),
        json!({"TotalCount": 0}),
        json!({"TotalCount": 1, "InstanceSet": {}}),
        json!({"TotalCount": 1, "InstanceSet": [null]}),
        json!({"TotalCount": 1, "InstanceSet": [{"InstanceId": "a"}]}),
        json!({"TotalCount": 1, "InstanceSet": [{"InstanceId": 7, "InstanceState": "RUNNING"}]}),
    ] {
        let (cloud, _) = cvm((0..3).map(|_| well(response.clone())).collect());
        let error = cloud.instances(&Select::All).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{response}");
    }
    for response in [json!({}), json!({"KeyId": null}), json!({"KeyId": ""}), json!({"KeyId": ["k"]})] {
        let (cloud, _) = cvm(vec![well(response.clone())]);
        let key = PublicKey::parse(LINE).unwrap();
        let error = cloud.import_key_pair(&"n".into(), &key, before()).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (Kind::Protocol, Effect::Unknown), "{response}");
    }
}

#[tokio::test]
async fn an_http_status_or_a_lost_answer_leaves_the_outcome_of_a_change_open() {
    for status in [201, 400, 404, 429, 500, 502, 503, 504] {
        let error = bind(vec![answer(status, &[], "<html>")]).await;
        assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown), "{status}");
        assert_eq!(error.code, format!("http_{status}"));
    }
    let error = bind(vec![Err(TransportError::NoAnswer("time-out".to_string()))]).await;
    assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown));
    let error = bind(vec![refused("InternalError")]).await;
    assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::Unknown));
}

#[tokio::test]
async fn what_is_known_not_done_is_sent_again() {
    let (cloud, script) = lighthouse(vec![
        refused("RequestLimitExceeded"),
        Err(TransportError::NotSent("refused".into())),
        well(json!({})),
    ]);
    cloud.bind(&"k".into(), &ids(&["i"]), before()).await.unwrap();
    script.is_played_out();
}

#[tokio::test]
async fn an_expired_request_is_signed_anew_and_sent_once_more_and_then_denied() {
    let expired = || refused("AuthFailure.SignatureExpire");
    let (face, script) = cvm(vec![expired(), well(json!({}))]);
    face.bind(&"skey-1".into(), &ids(&["ins-1"]), before()).await.unwrap();
    script.is_played_out();
    let error = bind(vec![expired(), expired()]).await;
    assert_eq!((error.kind, error.effect, error.blame), (Kind::Denied, Effect::NotDone, Blame::Account));
}

#[tokio::test]
async fn a_refusal_carries_the_clouds_words_and_no_secret() {
    let message = "SecretId AKIDFAKE0000000000000000000000000001 may not do this";
    let body =
        json!({"Response": {"Error": {"Code": "UnauthorizedOperation", "Message": message}, "RequestId": "r-5"}});
    let error = bind(vec![answer(200, &[], &body.to_string())]).await;
    assert_eq!(
        error,
        Error {
            kind: Kind::Denied,
            effect: Effect::NotDone,
            blame: Blame::Account,
            action: "AssociateInstancesKeyPairs".to_string(),
            code: "UnauthorizedOperation".to_string(),
            message: "SecretId [secret] may not do this".to_string(),
            request_id: Some("r-5".to_string()),
            retry_after: None,
        }
    );
    // The message may be absent or null.
    let body = json!({"Response": {"Error": {"Code": "LimitExceeded", "Message": null}}});
    assert_eq!(bind(vec![answer(200, &[], &body.to_string())]).await.kind, Kind::Quota);
}

#[tokio::test]
async fn calls_beyond_the_clouds_limits_are_not_sent() {
    let (cloud, script) = cvm(vec![]);
    let many: Vec<InstanceId> = (0..101).map(|n| InstanceId::new(format!("i-{n}"))).collect();
    for instances in [&many[..], &[]] {
        for error in [
            cloud.bind(&"k".into(), instances, before()).await.unwrap_err(),
            cloud.unbind(&"k".into(), instances, before()).await.unwrap_err(),
            cloud.power(PowerChange::Start, instances, before()).await.unwrap_err(),
        ] {
            assert_eq!((error.kind, error.effect, error.blame), (Kind::Invalid, Effect::NotDone, Blame::Request));
        }
    }
    script.is_played_out();
}
