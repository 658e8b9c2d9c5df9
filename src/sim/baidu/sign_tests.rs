//! The verifier against signatures made by the vendor's own SDK, and against requests bent in one place each.

use serde_json::Value;

use super::*;

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/baidu_bce.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

/// The request of a case as it arrives, its credential and its moment.
fn arrival(case: &Value) -> (Request, Credential<'_>, Timestamp) {
    let mut headers: Vec<(String, String)> =
        case["headers_in"].as_object().unwrap().iter().map(|(k, v)| (k.to_lowercase(), text(v))).collect();
    headers.push(("authorization".into(), text(&case["expected"]["authorization"])));
    let method = match case["method"].as_str().unwrap() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        other => panic!("a method the simulator does not know: {other}"),
    };
    let request = Request {
        method,
        origin: "http://127.0.0.1".into(),
        path: text(&case["path"]),
        query: text(&case["query"]),
        headers,
        body: text(&case["body"]).into_bytes(),
    };
    let credentials = &case["credentials"];
    let credential = Credential {
        access_key_id: credentials["access_key_id"].as_str().unwrap(),
        access_key_secret: credentials["secret_access_key"].as_str().unwrap(),
        security_token: credentials["session_token"].as_str(),
    };
    (request, credential, text(&case["timestamp"]).parse().unwrap())
}

#[test]
fn every_vector_of_the_vendors_sdk_is_accepted() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        let (request, credential, at) = arrival(case);
        let claim = claim(&request).unwrap();
        let expected = &case["expected"];
        let canonical = canonical_request(&request, &covered(&request, &claim)).unwrap();
        assert_eq!(canonical, text(&expected["canonical_request"]), "{}", case["name"]);
        assert_eq!(claim.prefix, text(&expected["string_to_sign"]), "{}", case["name"]);
        let result = verify(&request, &credential, at);
        assert!(result.is_ok(), "{}: {result:?}", case["name"]);
    }
}

#[test]
fn every_vector_is_refused_once_it_is_bent() {
    let set = |request: &mut Request, name: &str, value: &str| {
        request.headers.retain(|(key, _)| key != name);
        request.headers.push((name.to_string(), value.to_string()));
    };
    type Bend<'a> = (&'a str, Box<dyn Fn(&mut Request, &mut Credential<'_>, &mut Timestamp) + 'a>);
    let bends: Vec<Bend> = vec![
        ("AccessDenied", Box::new(|r, _, _| r.headers.retain(|(key, _)| key != "authorization"))),
        ("InvalidHTTPAuthHeader", Box::new(move |r, _, _| set(r, "authorization", "bce-auth-v1/ak/now"))),
        (
            "InvalidHTTPAuthHeader",
            Box::new(move |r, _, _| {
                let other = r.headers.last().unwrap().1.replace("bce-auth-v1", "bce-auth-v2");
                set(r, "authorization", &other);
            }),
        ),
        ("InvalidAccessKeyId", Box::new(|_, c, _| c.access_key_id = "unknown")),
        ("RequestExpired", Box::new(|_, _, at| *at += SignedDuration::from_secs(3601))),
        ("RequestExpired", Box::new(|_, _, at| *at -= AHEAD + SignedDuration::from_secs(1))),
        ("SignatureDoesNotMatch", Box::new(|_, c, _| c.access_key_secret = "wrong")),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.query.push_str("&zoneName=other"))),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.path.push_str("/other"))),
        ("SignatureDoesNotMatch", Box::new(move |r, _, _| set(r, "x-bce-extra", "not signed"))),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.headers.retain(|(key, _)| key != "host"))),
        (
            "SignatureDoesNotMatch",
            Box::new(|r, _, _| {
                r.method = if r.method == "PUT" { "POST" } else { "PUT" };
            }),
        ),
        ("AccessDenied", Box::new(|_, c, _| c.security_token = Some("another"))),
    ];
    for case in &cases() {
        for (index, (code, bend)) in bends.iter().enumerate() {
            let (mut request, mut credential, mut at) = arrival(case);
            bend(&mut request, &mut credential, &mut at);
            let refused = verify(&request, &credential, at).unwrap_err();
            assert_eq!(refused.code, *code, "bend {index} of {}", case["name"]);
        }
    }
}

#[test]
fn a_request_is_good_until_its_own_expiration_and_no_second_longer() {
    for case in &cases() {
        let (request, credential, at) = arrival(case);
        let expiration = SignedDuration::from_secs(case["expiration_seconds"].as_i64().unwrap());
        assert!(verify(&request, &credential, at + expiration).is_ok());
        let late = verify(&request, &credential, at + expiration + SignedDuration::from_secs(1)).unwrap_err();
        assert_eq!(late.code, "RequestExpired");
        assert!(verify(&request, &credential, at - AHEAD).is_ok());
    }
}

#[test]
fn both_wire_forms_of_an_action_have_one_canonical_form() {
    let case = cases().into_iter().find(|case| case["query"] == "attach=").unwrap();
    let (mut request, credential, at) = arrival(&case);
    request.query = "attach".into();
    assert!(verify(&request, &credential, at).is_ok());
}
