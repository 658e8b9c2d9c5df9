//! The verifier against signatures made by the vendor's own SDK, and against requests bent in one place each.

use serde_json::Value;

use super::*;

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/aliyun_acs3.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

/// The request of a case as it arrives, its credential and its moment.
fn arrival(case: &Value) -> (Request, Credential<'_>, Timestamp) {
    let expected = &case["expected"];
    let mut headers: Vec<(String, String)> =
        case["headers_in"].as_object().unwrap().iter().map(|(k, v)| (k.to_lowercase(), text(v))).collect();
    headers.push(("authorization".into(), text(&expected["authorization"])));
    let method = match case["method"].as_str().unwrap() {
        "POST" => "POST",
        "GET" => "GET",
        other => panic!("a method the simulator does not know: {other}"),
    };
    let request = Request {
        method,
        origin: format!("http://{}", text(&case["host"])),
        path: text(&case["path"]),
        query: text(&expected["canonical_query"]),
        headers,
        body: text(&case["body"]).into_bytes(),
    };
    let credentials = &case["credentials"];
    let credential = Credential {
        access_key_id: credentials["access_key_id"].as_str().unwrap(),
        access_key_secret: credentials["access_key_secret"].as_str().unwrap(),
        security_token: credentials["security_token"].as_str(),
    };
    (request, credential, text(&case["timestamp"]).parse().unwrap())
}

#[test]
fn every_vector_of_the_vendors_sdk_is_accepted() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        let (request, credential, at) = arrival(case);
        let signed = claim(&request).unwrap().signed;
        let hash = sha256_hex(&request.body);
        let canonical = canonical_request(&request, &signed, &hash).unwrap();
        let expected = &case["expected"];
        assert_eq!(canonical, text(&expected["canonical_request"]), "{}", case["name"]);
        assert_eq!(string_to_sign(&canonical), text(&expected["string_to_sign"]), "{}", case["name"]);
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
        ("IncompleteSignature", Box::new(|r, _, _| r.headers.retain(|(key, _)| key != "authorization"))),
        ("IncompleteSignature", Box::new(move |r, _, _| set(r, "authorization", "acs fake:sig"))),
        (
            "IncompleteSignature",
            Box::new(move |r, _, _| {
                let spaced = r.headers.last().unwrap().1.replace(',', ", ");
                set(r, "authorization", &spaced);
            }),
        ),
        ("IncompleteSignature", Box::new(move |r, _, _| set(r, "x-acs-extra", "not signed"))),
        (
            "IncompleteSignature",
            Box::new(move |r, _, _| {
                let unsorted = r.headers.last().unwrap().1.replace("host;x-acs-action", "x-acs-action;host");
                let unsorted = unsorted.replace("host;user-agent", "user-agent;host");
                set(r, "authorization", &unsorted);
            }),
        ),
        ("MissingParameter", Box::new(|r, _, _| r.headers.retain(|(key, _)| key != "x-acs-signature-nonce"))),
        ("InvalidAccessKeyId.NotFound", Box::new(|_, c, _| c.access_key_id = "unknown")),
        ("InvalidTimeStamp.Expired", Box::new(|_, _, at| *at += SignedDuration::from_secs(15 * 60 + 1))),
        ("InvalidTimeStamp.Expired", Box::new(|_, _, at| *at -= SignedDuration::from_secs(15 * 60 + 1))),
        ("SignatureDoesNotMatch", Box::new(|_, c, _| c.access_key_secret = "wrong")),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.body.push(b' '))),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.query.push_str("&Zone=other"))),
        ("SignatureDoesNotMatch", Box::new(|r, _, _| r.path.push_str("index"))),
        ("SignatureDoesNotMatch", Box::new(move |r, _, _| set(r, "x-acs-action", "DeleteKeyPairs2"))),
        ("InvalidSecurityToken.Malformed", Box::new(|_, c, _| c.security_token = Some("another"))),
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
fn the_clock_window_is_fifteen_minutes_wide_on_both_sides() {
    let cases = cases();
    let (request, credential, at) = arrival(&cases[0]);
    for seconds in [-900, 0, 900] {
        let now = at + SignedDuration::from_secs(seconds);
        assert!(verify(&request, &credential, now).is_ok(), "{seconds}");
    }
}
