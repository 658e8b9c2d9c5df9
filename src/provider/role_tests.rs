//! Tests of a role: the answers that the vendors' SDKs read, and all that can be wrong with one.

use secrecy::ExposeSecret;

use super::*;
use crate::provider::http::door::tests::{Script, answer};

const TENCENT: &str = r#"{"TmpSecretId":"AKIDtmp","TmpSecretKey":"the-key","ExpiredTime":1795341600,
    "Expiration":"2026-11-22T10:00:00Z","Token":"the-token","Code":"Success"}"#;
const ALIBABA: &str = r#"{"AccessKeyId":"STS.tmp","AccessKeySecret":"the-key","Expiration":"2026-11-22T10:00:00Z",
    "SecurityToken":"the-token","LastUpdated":"2026-11-22T04:00:00Z","Code":"Success"}"#;

type Answers = Vec<std::result::Result<Response, TransportError>>;

async fn fetch(kind: ProviderKind, name: Option<&str>, answers: Answers) -> (Result<Fetched, String>, Vec<Request>) {
    let script = Script::of(answers);
    let role = Role::new(kind, name.map(str::to_string), None).unwrap();
    let fetched = role.fetch(script.as_ref()).await;
    script.is_played_out();
    let asked = script.asked.lock().unwrap().clone();
    (fetched, asked)
}

fn urls(asked: &[Request]) -> Vec<String> {
    asked.iter().map(|one| format!("{} {}{}", one.method, one.origin, one.path)).collect()
}

#[track_caller]
fn is_read(fetched: Result<Fetched, String>, id: &str) {
    let fetched = fetched.unwrap();
    assert_eq!(fetched.expires.to_string(), "2026-11-22T10:00:00Z");
    assert_eq!(fetched.credentials.access_key_id, id);
    assert_eq!(fetched.credentials.access_key_secret.expose_secret(), "the-key");
    assert_eq!(fetched.credentials.session_token.as_ref().unwrap().expose_secret(), "the-token");
    assert!(!format!("{fetched:?}").contains("the-"), "{fetched:?}");
}

#[tokio::test]
async fn tencents_role_is_found_by_its_name_and_by_its_address_where_the_name_is_unknown() {
    const FOLDER: &str = "/latest/meta-data/cam/security-credentials/";
    let kind = ProviderKind::TencentCvm;
    let (fetched, asked) = fetch(kind, None, vec![answer(200, &[], "Ops\n"), answer(200, &[], TENCENT)]).await;
    is_read(fetched, "AKIDtmp");
    let host = "http://metadata.tencentyun.com";
    assert_eq!(urls(&asked), [format!("GET {host}{FOLDER}"), format!("GET {host}{FOLDER}Ops")]);
    assert!(asked.iter().all(|one| one.headers == [("host".to_string(), "metadata.tencentyun.com".to_string())]));
    let unsent = || Err(TransportError::NotSent("no such name".to_string()));
    let (fetched, asked) = fetch(kind, Some("Ops"), vec![unsent(), answer(200, &[], TENCENT)]).await;
    is_read(fetched, "AKIDtmp");
    assert_eq!(urls(&asked)[1], format!("GET http://169.254.0.23{FOLDER}Ops"));
    let (fetched, _) = fetch(kind, None, vec![unsent(), unsent()]).await;
    assert!(fetched.unwrap_err().contains("cannot be reached (no such name)"));
}

#[tokio::test]
async fn alibabas_role_is_asked_in_a_session_and_without_one_where_there_are_none() {
    let kind = ProviderKind::AlibabaEcs;
    let answers = || vec![answer(200, &[], "rekeyd"), answer(200, &[], ALIBABA)];
    let (fetched, asked) = fetch(kind, None, [vec![answer(200, &[], "session==")], answers()].concat()).await;
    is_read(fetched, "STS.tmp");
    let folder = "http://100.100.100.200/latest/meta-data/ram/security-credentials/";
    let session = "PUT http://100.100.100.200/latest/api/token".to_string();
    assert_eq!(urls(&asked), [session.clone(), format!("GET {folder}"), format!("GET {folder}rekeyd")]);
    let bears = |one: &Request, name: &str, value: &str| one.headers.contains(&(name.to_string(), value.to_string()));
    assert!(bears(&asked[0], "x-aliyun-ecs-metadata-token-ttl-seconds", "21600"));
    assert!(asked[1..].iter().all(|one| bears(one, "x-aliyun-ecs-metadata-token", "session==")));
    for none in [404, 403, 405] {
        let (fetched, asked) = fetch(kind, None, [vec![answer(none, &[], "<html>")], answers()].concat()).await;
        is_read(fetched, "STS.tmp");
        assert!(asked[1..].iter().all(|one| one.headers.len() == 1), "no session, no token");
    }
    let silent = Err(TransportError::NoAnswer("timed out".to_string()));
    let no_text = Ok(Response { status: 200, headers: Vec::new(), body: vec![0xff] });
    for none in [silent, no_text] {
        let (fetched, asked) = fetch(kind, None, [vec![none], answers()].concat()).await;
        is_read(fetched, "STS.tmp");
        assert!(asked[1..].iter().all(|one| one.headers.len() == 1), "no session, no token");
    }
    let unsent = vec![Err(TransportError::NotSent("refused".to_string()))];
    let (fetched, _) = fetch(kind, None, unsent).await;
    assert!(fetched.unwrap_err().contains("cannot be reached (refused)"), "nobody is there to be asked without one");
}

#[tokio::test]
async fn what_is_no_good_answer_is_said_without_a_word_of_it() {
    let check = async |kind, name, answers: Answers, expect: &str| {
        let (fetched, _) = fetch(kind, name, answers).await;
        let why = fetched.unwrap_err();
        assert!(why.contains(expect), "{why}");
        assert!(!why.contains("the-") && !why.contains("AKID"), "{why}");
    };
    let (tencent, alibaba) = (ProviderKind::TencentLighthouse, ProviderKind::AlibabaEcs);
    let said = |text: &str| vec![answer(200, &[], text)];
    check(tencent, None, vec![answer(404, &[], "<html>")], "this machine has no role").await;
    check(tencent, None, said(""), "this machine has no role").await;
    check(tencent, None, said("<html>the-key</html>"), "no name of a role").await;
    check(tencent, None, vec![answer(500, &[], "the-key")], "the name of this machine's role: HTTP 500").await;
    check(tencent, Some("Ops"), vec![answer(404, &[], "")], "does not have the role Ops").await;
    check(tencent, Some("Ops"), vec![answer(302, &[], "the-key")], "the role's credentials: HTTP 302").await;
    check(tencent, Some("Ops"), said("<the-key>"), "something else than").await;
    check(tencent, Some("Ops"), said(r#"{"TmpSecretKey":"the-key","Code":"Failed"}"#), "code \"Failed\"").await;
    check(tencent, Some("Ops"), said(&TENCENT.replace("Expir", "X")), "does not say when").await;
    check(tencent, Some("Ops"), said(&TENCENT.replace("AKIDtmp", "")), "access_key_id is empty or holds").await;
    check(tencent, Some("Ops"), said(&TENCENT.replace("the-token", "the- token")), "session_token is empty or").await;
    check(alibaba, None, vec![answer(403, &[], ""), answer(403, &[], "")], "HTTP 403").await;
    let lost = || Err(TransportError::NoAnswer("timed out".to_string()));
    check(tencent, Some("Ops"), vec![lost()], "the metadata service: no answer: timed out").await;
    check(alibaba, None, vec![lost(), lost()], "timed out").await;
}
