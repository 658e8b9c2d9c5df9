//! The legacy endpoint under good and bad requests. The signer is the checker's own arithmetic, which the golden vectors
//! prove.

use std::collections::BTreeSet;

use super::super::testing::Bench;
use super::*;
use crate::model::ProviderKind;
use crate::sim::{Power, Rule, Weather};

/// How a request is sent.
#[derive(Clone, Copy)]
enum By {
    Get,
    Post,
}

/// A client of the legacy endpoint beside the bench's own of API 3.0: the same world.
struct Legacy {
    bench: Bench,
    nonce: u64,
}

type Params = Vec<(String, String)>;

impl Legacy {
    fn new() -> Self {
        Self { bench: Bench::new(ProviderKind::TencentCvm), nonce: 0 }
    }

    /// The parameters of a good request, unsigned.
    fn params(&mut self, action: &str, own: &[(&str, &str)]) -> Params {
        self.nonce += 1;
        let cloud = self.bench.world.cloud(0);
        let (nonce, now) = (self.nonce.to_string(), self.bench.now.as_second().to_string());
        let common = [
            ("Action", action),
            ("Version", "2017-03-12"),
            ("Region", cloud.region.as_str()),
            ("Timestamp", now.as_str()),
            ("Nonce", nonce.as_str()),
            ("SecretId", cloud.access_key_id.as_str()),
        ];
        own.iter().chain(&common).map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// Signs as `by` is sent, unless a signature is there.
    fn request(&self, by: By, mut params: Params) -> Request {
        let method = match by {
            By::Get => "GET",
            By::Post => "POST",
        };
        let given = |wanted: &str| params.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        if given("Signature").is_none() {
            let algorithm = sign_v1::algorithm(given("SignatureMethod")).unwrap_or(aws_lc_rs::hmac::HMAC_SHA256);
            let to_sign = sign_v1::string_to_sign(method, "127.0.0.1:1", PATH, &params);
            let secret = &self.bench.world.cloud(0).access_key_secret;
            params.push(("Signature".into(), sign_v1::signature(algorithm, secret, &to_sign)));
        }
        let form: Vec<String> =
            params.iter().map(|(name, value)| format!("{}={}", canon::encode(name), canon::encode(value))).collect();
        let mut headers = vec![("host".to_string(), "127.0.0.1:1".to_string())];
        let (query, body) = match by {
            By::Get => (form.join("&"), String::new()),
            By::Post => {
                headers.push(("content-type".into(), "application/x-www-form-urlencoded".into()));
                (String::new(), form.join("&"))
            }
        };
        let (origin, path) = ("http://127.0.0.1:1".into(), PATH.to_string());
        Request { method, origin, path, query, headers, body: body.into_bytes() }
    }

    fn send(&mut self, request: &Request) -> Value {
        let reply = self.bench.send(request).reply.expect("an answer");
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// A good request, by GET or POST in turn, signed by each method in turn.
    fn call(&mut self, action: &str, own: &[(&str, &str)]) -> Value {
        let mut params = self.params(action, own);
        match self.nonce % 3 {
            0 => {}
            1 => params.push(("SignatureMethod".into(), "HmacSHA1".into())),
            _ => params.push(("SignatureMethod".into(), "HmacSHA256".into())),
        }
        let request = self.request(if self.nonce.is_multiple_of(2) { By::Get } else { By::Post }, params);
        self.send(&request)
    }

    fn violations(&self) -> Vec<Rule> {
        self.bench.world.violations().map(|violation| violation.rule).collect()
    }
}

/// What an answer says, in either shape: a flat one's number, or the wrapped one's code; empty for success.
fn said(answer: &Value) -> String {
    let object = answer.as_object().unwrap();
    match (object.get("Response"), object.get("code")) {
        (Some(response), None) => {
            assert!(response["RequestId"].is_string(), "{answer}");
            response["Error"]["Code"].as_str().unwrap_or_default().to_string()
        }
        (None, Some(code)) => {
            let number = code.as_u64().map(|number| number.to_string());
            let number = number.unwrap_or_else(|| code.as_str().unwrap().to_string());
            assert!(object["message"].is_string(), "{answer}");
            if number == "0" { String::new() } else { number }
        }
        _ => panic!("neither shape: {answer}"),
    }
}

#[test]
fn both_doors_lead_to_the_same_machines_and_pairs() {
    for flat in [0.0, 1.0] {
        let mut legacy = Legacy::new();
        legacy.bench.world.faults.flat = flat;
        let inner = |answer: Value| if flat == 0.0 { answer["Response"].clone() } else { answer };
        let line = legacy.bench.world.strangers_line();
        let own = [("KeyName", "rk_one"), ("ProjectId", "0"), ("PublicKey", line.as_str())];
        let id = inner(legacy.call("ImportKeyPair", &own))["KeyId"].as_str().unwrap().to_string();
        assert_eq!(legacy.bench.call("DescribeKeyPairs", json!({}))["KeyPairSet"][0]["KeyId"], *id);
        let machine = legacy.bench.instance(Power::Stopped, &[]);
        let pair = [("InstanceIds.1", machine.as_str()), ("KeyIds.1", id.as_str()), ("ForceStop", "FALSE")];
        let answer = inner(legacy.call("AssociateInstancesKeyPairs", &pair));
        assert!(answer["RequestId"].is_string(), "{answer}");
        legacy.bench.wait(300);
        let row = inner(legacy.call("DescribeInstances", &[("InstanceIds.1", &machine)]))["InstanceSet"][0].clone();
        assert_eq!((&row["LoginSettings"]["KeyIds"], &row["InstanceId"]), (&json!([id]), &json!(machine)));
        assert_eq!(row["LatestOperationRequestId"], answer["RequestId"]);
        assert_eq!(row, legacy.bench.look(&machine), "API 3.0 shows it alike");
        let filter = [("Filters.1.Name", "instance-name"), ("Filters.1.Values.1", "vm-0"), ("Limit", "1")];
        assert_eq!(inner(legacy.call("DescribeInstances", &filter))["TotalCount"], 1);
        for (action, power) in [("StartInstances", "RUNNING"), ("StopInstances", "STOPPED")] {
            assert_eq!(said(&legacy.call(action, &[("InstanceIds.1", &machine)])), "");
            legacy.bench.wait(300);
            assert_eq!(legacy.bench.look(&machine)["InstanceState"], power);
        }
        assert_eq!(said(&legacy.call("DisassociateInstancesKeyPairs", &pair)), "");
        legacy.bench.wait(300);
        assert_eq!(said(&legacy.call("DeleteKeyPairs", &[("KeyIds.1", &id)])), "");
        assert_eq!(legacy.bench.call("DescribeKeyPairs", json!({}))["TotalCount"], 0);
        assert_eq!(legacy.violations(), []);
        assert_eq!(legacy.bench.world.cloud(0).legacy_calls(), 8);
        assert_eq!(legacy.bench.world.cloud(0).calls()["DescribeInstances"], 5);
    }
}

#[test]
fn the_gateway_refuses_whatever_is_not_a_good_request_flat_or_wrapped() {
    /// What is wrong with the parameters before they are signed.
    type Change = fn(&mut Params);
    fn set(params: &mut Params, name: &str, value: &str) {
        params.retain(|(key, _)| key != name);
        params.push((name.into(), value.into()));
    }
    fn check(what: &str, change: Change, rule: Rule, expect: [&str; 2]) {
        let mut seen = BTreeSet::new();
        for turn in 0..24 {
            let mut legacy = Legacy::new();
            for _ in 0..turn {
                legacy.bench.world.request_id();
            }
            let mut params = legacy.params("DescribeInstances", &[]);
            change(&mut params);
            let request = legacy.request(if turn % 2 == 0 { By::Get } else { By::Post }, params);
            let answer = legacy.send(&request);
            assert!(answer.get("codeDesc").is_none(), "{what}: {answer}");
            seen.insert((answer.get("Response").is_some(), said(&answer)));
            assert_eq!(legacy.violations(), [rule], "{what}: {answer}");
        }
        let [number, code] = expect;
        let mut both = BTreeSet::from([(false, number.to_string())]);
        if !code.is_empty() {
            both.insert((true, code.to_string()));
        }
        assert_eq!(seen, both, "{what}");
    }
    use Rule::{Clock, Malformed, Signature};
    let value = ["4000", "InvalidParameterValue"];
    let missing = ["4000", "MissingParameter"];
    check("another credential", |p| set(p, "SecretId", "AKIDx"), Signature, ["4104", "AuthFailure.SecretIdNotFound"]);
    check("another signature", |p| set(p, "Signature", "eA=="), Signature, ["4100", "AuthFailure.SignatureFailure"]);
    check("a token that was not given out", |p| set(p, "Token", "t"), Signature, ["4105", "AuthFailure.TokenFailure"]);
    // 2026-11-22T12:00:00Z and five minutes and a second less.
    check("an old time", |p| set(p, "Timestamp", "1795348499"), Clock, ["4500", "AuthFailure.SignatureExpire"]);
    check("a time ahead", |p| set(p, "Timestamp", "1795349101"), Clock, ["4500", "AuthFailure.SignatureExpire"]);
    check("another version", |p| set(p, "Version", "2020-03-24"), Malformed, ["6100", "NoSuchVersion"]);
    check("another action", |p| set(p, "Action", "RunInstances"), Malformed, ["6100", "InvalidAction"]);
    check("an old name of a region", |p| set(p, "Region", "gz"), Malformed, ["4000", "UnsupportedRegion"]);
    check("no nonce", |p| p.retain(|(name, _)| name != "Nonce"), Malformed, missing);
    check("no version", |p| p.retain(|(name, _)| name != "Version"), Malformed, missing);
    check("no region", |p| p.retain(|(name, _)| name != "Region"), Malformed, missing);
    check("no action", |p| p.retain(|(name, _)| name != "Action"), Malformed, missing);
    check("an empty signature", |p| set(p, "Signature", ""), Malformed, missing);
    check("nonce 0", |p| set(p, "Nonce", "0"), Malformed, value);
    check("a nonce of letters", |p| set(p, "Nonce", "a1"), Malformed, value);
    check("a nonce below 0", |p| set(p, "Nonce", "-7"), Malformed, value);
    check("a time in milliseconds", |p| set(p, "Timestamp", "1795348800.0"), Malformed, value);
    check("another method", |p| set(p, "SignatureMethod", "HmacMD5"), Malformed, value);
    check("a client of odd letters", |p| set(p, "RequestClient", "a b"), Malformed, value);
    check("a parameter twice", |p| p.push(("Nonce".into(), "9".into())), Malformed, value);
}

#[test]
fn what_an_action_refuses_comes_wrapped_whatever_comes_flat() {
    for flat in [0.0, 1.0] {
        let check = |action: &str, own: &[(&str, &str)], expect: &str| {
            let mut legacy = Legacy::new();
            legacy.bench.world.faults.flat = flat;
            legacy.bench.instance(Power::Running, &[]);
            let answer = legacy.call(action, own);
            assert_eq!(answer["Response"]["Error"]["Code"], expect, "{answer}");
        };
        check("StopInstances", &[("InstanceIds.1", "ins-none")], "InvalidInstanceId.NotFound");
        check("StopInstances", &[("InstanceIds.1", "i-1")], "InvalidInstanceId.Malformed");
        check("StopInstances", &[], "MissingParameter");
        check("StopInstances", &[("InstanceIds.1", "ins-a"), ("Nonsense", "1")], "UnknownParameter");
        check("StopInstances", &[("InstanceIds.1", "ins-a"), ("Language", "en")], "UnknownParameter");
        check("DescribeInstances", &[("Filters_1_Name", "zone")], "UnknownParameter");
        check("DescribeInstances", &[("Limit", "101")], "InvalidParameterValueLimit");
        check("DescribeInstances", &[("InstanceIds", "ins-a")], "InvalidParameter");
        check("ImportKeyPair", &[("KeyName", "a"), ("PublicKey", "x")], "MissingParameter");
        let own = [("KeyName", "a"), ("PublicKey", "@x"), ("ProjectId", "0")];
        check("ImportKeyPair", &own, "InvalidPublicKey.Malformed");
    }
}

#[test]
fn a_list_with_a_gap_is_refused() {
    let mut legacy = Legacy::new();
    let id = legacy.bench.instance(Power::Running, &[]);
    let params = legacy.params("StopInstances", &[("InstanceIds.1", &id), ("InstanceIds.3", "ins-a")]);
    let answer = legacy.send(&legacy.request(By::Get, params));
    assert!(["4000", "InvalidParameterValue"].contains(&said(&answer).as_str()), "{answer}");
    assert_eq!(legacy.violations(), [Rule::Malformed]);
}

#[test]
fn a_request_that_is_framed_otherwise_is_refused() {
    let check = |what: &str, by: By, change: &dyn Fn(&mut Request), rule: Rule, expect: [&str; 2]| {
        let mut legacy = Legacy::new();
        let params = legacy.params("DescribeInstances", &[]);
        let mut request = legacy.request(by, params);
        change(&mut request);
        let answer = legacy.send(&request);
        assert!(expect.contains(&said(&answer).as_str()), "{what}: {answer}");
        assert_eq!(legacy.violations(), [rule], "{what}");
    };
    let (protocol, value) = (["4600", "UnsupportedProtocol"], ["4000", "InvalidParameterValue"]);
    check("a PUT", By::Get, &|r| r.method = "PUT", Rule::Malformed, protocol);
    check("a GET with a body", By::Get, &|r| r.body = b"a=b".to_vec(), Rule::Malformed, protocol);
    check("a POST with a query", By::Post, &|r| r.query = "a=b".into(), Rule::Malformed, protocol);
    let json = |r: &mut Request| r.headers[1].1 = "application/json".into();
    check("a form that says it is JSON", By::Post, &json, Rule::Malformed, protocol);
    check("no content type", By::Post, &|r| r.headers.truncate(1), Rule::Malformed, protocol);
    let long = |r: &mut Request| r.query += &format!("&a={}", "x".repeat(QUERY_MAX));
    check("a long query", By::Get, &long, Rule::Limit, value);
    let large = |r: &mut Request| r.body.resize(BODY_MAX + 1, b'x');
    check("a large body", By::Post, &large, Rule::Limit, value);
    let elsewhere = |r: &mut Request| r.headers[0].1 = "cvm.api.qcloud.com".into();
    check("another host", By::Get, &elsewhere, Rule::Malformed, value);
    check("no UTF-8", By::Get, &|r| r.query += "&a=%FF", Rule::Malformed, value);
    // A form that was encoded by halves is another text, and another signature.
    let halves = |r: &mut Request| r.query += "+";
    let signature = ["4100", "AuthFailure.SignatureFailure"];
    check("a blank at the end", By::Get, &halves, Rule::Signature, signature);
}

#[test]
fn a_nonce_is_good_once_and_the_answer_to_its_second_use_is_always_flat() {
    for turn in 0..8 {
        let mut legacy = Legacy::new();
        for _ in 0..turn {
            legacy.bench.world.request_id();
        }
        let params = legacy.params("DescribeRegions", &[]);
        let request = legacy.request(By::Get, params);
        assert_eq!(said(&legacy.send(&request)), "");
        let answer = legacy.send(&request);
        assert!(said(&answer) == "4500" && answer.get("Response").is_none(), "{answer}");
        // Half a minute later and signed anew it is still the same nonce.
        legacy.bench.wait(30_000);
        legacy.nonce -= 1;
        let params = legacy.params("DescribeRegions", &[]);
        assert_eq!(said(&legacy.send(&legacy.request(By::Post, params))), "4500");
        assert_eq!(legacy.violations(), [Rule::Nonce, Rule::Nonce]);
        // A request that was refused for its signature has used up no nonce.
        let mut params = legacy.params("DescribeRegions", &[]);
        params.push(("Signature".into(), "eA==".into()));
        legacy.send(&legacy.request(By::Get, params.clone()));
        params.pop();
        assert_eq!(said(&legacy.send(&legacy.request(By::Get, params))), "");
    }
}

#[test]
fn the_rates_are_those_of_api_3_and_shared_with_it() {
    let mut legacy = Legacy::new();
    for number in 0..12 {
        if number % 2 == 0 {
            assert_eq!(said(&legacy.call("DescribeKeyPairs", &[])), "", "{number}");
        } else {
            assert_eq!(legacy.bench.code("DescribeKeyPairs", json!({})), "", "{number}");
        }
    }
    let answer = legacy.call("DescribeKeyPairs", &[]);
    assert!(["4400", "RequestLimitExceeded"].contains(&said(&answer).as_str()), "{answer}");
    assert_eq!(legacy.violations(), [Rule::Rate]);
}

#[test]
fn faults_and_denials_come_in_the_endpoints_own_shapes() {
    let kind = Some(ProviderKind::TencentCvm);
    let mut seen = BTreeSet::new();
    for flat in [0.0, 1.0] {
        let mut legacy = Legacy::new();
        legacy.bench.world.faults.flat = flat;
        for _ in 0..16 {
            legacy.bench.world.faults.script(kind, "DescribeKeyPairs", 1, Weather::Throttled);
            seen.insert(said(&legacy.call("DescribeKeyPairs", &[])));
            let fault = Weather::ServerError { applied: false, gateway: false };
            legacy.bench.world.faults.script(kind, "DescribeKeyPairs", 1, fault);
            let expect = if flat == 0.0 { "InternalServerError" } else { "6000" };
            assert_eq!(said(&legacy.call("DescribeKeyPairs", &[])), expect);
            legacy.bench.world.cloud_mut(0).denied = ["DescribeRegions".to_string()].into();
            seen.insert(said(&legacy.call("DescribeRegions", &[])));
        }
        assert_eq!(legacy.violations(), []);
    }
    let expect = ["4101", "4400", "RequestLimitExceeded", "UnauthorizedOperation"];
    assert_eq!(seen, expect.map(str::to_string).into());
}

#[test]
fn a_session_token_must_come_and_is_signed_like_any_parameter() {
    let mut legacy = Legacy::new();
    let token = "a token/with+special=chars&and%";
    legacy.bench.world.cloud_mut(0).session_token = Some(token.into());
    assert!(["4105", "AuthFailure.TokenFailure"].contains(&said(&legacy.call("DescribeRegions", &[])).as_str()));
    assert_eq!(said(&legacy.call("DescribeRegions", &[("Token", token)])), "");
}

#[test]
fn only_cvm_has_the_endpoint() {
    let mut bench = Bench::new(ProviderKind::TencentLighthouse);
    let mut request = bench.request("DescribeInstances", &json!({}));
    request.path = PATH.into();
    let reply = bench.send(&request).reply.unwrap();
    assert!(String::from_utf8(reply.body).unwrap().contains("UnsupportedProtocol"));
    assert_eq!(bench.world.cloud(0).legacy_calls(), 0);
}
