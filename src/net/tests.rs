//! Tests of the real network, against a socket on loopback that answers from a script.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Takes one connection, reads up to a body of the told length, writes `answer`, closes. Gives back what it read.
async fn serve(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        let mut chunk = [0u8; 4096];
        loop {
            let n = socket.read(&mut chunk).await.unwrap();
            read.extend_from_slice(&chunk[..n]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                body.len() >= told.map_or(0, |told| told.parse().unwrap())
            });
            if n == 0 || whole {
                break;
            }
        }
        socket.write_all(&answer).await.ok();
        String::from_utf8(read).unwrap()
    });
    (authority, served)
}

fn request(authority: &str, method: &'static str, query: &str, body: &str) -> Request {
    Request {
        method,
        origin: format!("http://{authority}"),
        path: "/v2/keypair/k%2D1".to_string(),
        query: query.to_string(),
        headers: vec![
            ("host".to_string(), authority.to_string()),
            ("content-type".to_string(), "application/json".to_string()),
            ("x-odd".to_string(), "a,b;c=\"d\"  e".to_string()),
        ],
        body: body.as_bytes().to_vec(),
    }
}

const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Id: 7\r\n\r\nok";

#[tokio::test]
async fn what_goes_over_the_wire_is_what_was_signed() {
    let network = Network::new().unwrap();
    let (authority, served) = serve(WELL.into()).await;
    let answer = network.send(&request(&authority, "POST", "attach&a=%20b%2A~", "{\"a\": 1}")).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.header("x-id")), (200, b"ok".as_slice(), Some("7")));
    let wire = served.await.unwrap();
    let (head, body) = wire.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.lines().next(), Some("POST /v2/keypair/k%2D1?attach&a=%20b%2A~ HTTP/1.1"));
    let mut headers: Vec<&str> = head.lines().skip(1).collect();
    headers.sort();
    let host = format!("host: {authority}");
    let expect = ["accept: */*", "content-length: 8", "content-type: application/json", &host, "x-odd: a,b;c=\"d\"  e"];
    assert_eq!(headers, expect);
    assert_eq!(body, "{\"a\": 1}");
}

#[tokio::test]
async fn get_has_no_body_and_an_empty_post_says_so() {
    let network = Network::new().unwrap();
    for (method, length) in [("GET", None), ("DELETE", None), ("POST", Some("content-length: 0"))] {
        let (authority, served) = serve(WELL.into()).await;
        network.send(&request(&authority, method, "", "")).await.unwrap();
        let wire = served.await.unwrap();
        assert_eq!(wire.lines().next(), Some(format!("{method} /v2/keypair/k%2D1 HTTP/1.1").as_str()));
        assert_eq!(wire.lines().find(|line| line.starts_with("content-length")), length, "{method}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (authority, served) =
        serve(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n".into()).await;
    let answer = Network::new().unwrap().send(&request(&authority, "GET", "", "")).await.unwrap();
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://127.0.0.1:9/")));
    served.await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_was_surely_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Network::new().unwrap().send(&request(&authority, "POST", "", "x")).await.unwrap_err();
    assert!(matches!(error, TransportError::NotSent(_)), "{error}");
}

#[tokio::test]
async fn a_connection_lost_after_sending_leaves_the_outcome_open() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "rubbish\r\n\r\n"] {
        let (authority, served) = serve(answer.into()).await;
        let error = Network::new().unwrap().send(&request(&authority, "POST", "", "x")).await.unwrap_err();
        assert!(matches!(error, TransportError::NoAnswer(_)), "{answer:?}: {error}");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let told = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY_MAX + 1);
    let mut untold = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    untold.resize(BODY_MAX + 1000, b'x');
    for answer in [told.into_bytes(), untold] {
        let (authority, served) = serve(answer).await;
        let error = Network::new().unwrap().send(&request(&authority, "GET", "", "")).await.unwrap_err();
        assert_eq!(error, TransportError::TooLarge);
        served.abort();
    }
}

#[tokio::test]
async fn what_would_break_the_signature_is_not_sent() {
    let good = request("127.0.0.1:9", "POST", "", "");
    let check = async |change: &dyn Fn(&mut Request), expect: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        match Network::new().unwrap().send(&bad).await.unwrap_err() {
            TransportError::NotSent(problem) => assert!(problem.contains(expect), "{problem:?} of {expect:?}"),
            other => panic!("{other}"),
        }
    };
    check(&|bad| bad.path = "/a/../b".to_string(), "rewritten").await;
    check(&|bad| bad.path = "/a b".to_string(), "rewritten").await;
    check(&|bad| bad.query = "a=b c".to_string(), "rewritten").await;
    check(&|bad| bad.query = "a#b".to_string(), "rewritten").await;
    check(&|bad| bad.headers[0].1 = "127.0.0.1".to_string(), "host header").await;
    check(&|bad| drop(bad.headers.remove(0)), "host header").await;
    check(&|bad| bad.headers[1].1 = "a\nb".to_string(), "header value").await;
    check(&|bad| bad.origin = "http://example.com".to_string(), "plain http").await;
}

#[test]
fn origins_are_https_or_plain_http_to_this_machine() {
    let well = |text: &str, expect: &str, authority: &str| {
        let origin = Origin::parse(text).unwrap();
        assert_eq!((origin.to_string().as_str(), origin.authority()), (expect, authority), "{text}");
    };
    let lighthouse = "https://lighthouse.tencentcloudapi.com";
    well(lighthouse, lighthouse, "lighthouse.tencentcloudapi.com");
    well("https://Lighthouse.TencentCloudAPI.com:443/", lighthouse, "lighthouse.tencentcloudapi.com");
    well("https://a.example:8443", "https://a.example:8443", "a.example:8443");
    well("http://127.0.0.1:80", "http://127.0.0.1", "127.0.0.1");
    well("http://127.9.8.7:8080", "http://127.9.8.7:8080", "127.9.8.7:8080");
    well("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080");
    well("http://localhost:8080", "http://localhost:8080", "localhost:8080");

    let plain = |text: &str| assert!(matches!(Origin::parse(text), Err(OriginError::PlainHttp(_))), "{text}");
    for text in ["http://example.com", "http://10.0.0.1", "http://[::2]:80", "http://localhost.example.com"] {
        plain(text);
    }
    plain("http://127.0.0.1.example.com:8080");
    for text in [
        "",
        "example.com",
        "ftp://example.com",
        "https://",
        "https://user:pass@example.com",
        "https://example.com/path",
        "https://example.com?query",
        "https://example.com#part",
        "https://exa mple.com",
        "https://127.1",
        "HTTPS://example.com",
    ] {
        assert!(matches!(Origin::parse(text), Err(OriginError::Malformed(_))), "{text}");
    }
    assert!(!Origin::parse("https://user:hush@example.com").unwrap_err().to_string().contains("hush"));
}

#[test]
fn a_request_does_not_print_its_headers_query_or_body() {
    let mut secret = request("127.0.0.1:9", "POST", "Signature=hush", "hush");
    secret.headers.push(("x-tc-token".to_string(), "hush".to_string()));
    let shown = format!("{secret:?}");
    assert!(!shown.contains("hush") && shown.contains("x-tc-token"), "{shown}");
}

#[tokio::test]
async fn a_failed_tls_handshake_was_surely_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 speak plainly\r\n\r\n").await.ok();
    });
    let mut secure = request(&authority, "POST", "", "x");
    secure.origin = format!("https://{authority}");
    let error = Network::new().unwrap().send(&secure).await.unwrap_err();
    assert!(matches!(error, TransportError::NotSent(_)), "{error}");
    served.abort();
}

#[test]
fn plain_http_goes_to_a_metadata_service_only_with_nothing_of_ours() {
    let ask = |origin: &str, change: &dyn Fn(&mut Request)| {
        let mut request = Request {
            method: "GET",
            origin: origin.to_string(),
            path: "/latest/meta-data/cam/security-credentials/".to_string(),
            query: String::new(),
            headers: vec![("host".to_string(), origin.split("://").nth(1).unwrap().to_string())],
            body: Vec::new(),
        };
        change(&mut request);
        url_of(&request).map(|(origin, _)| origin.to_string()).map_err(|error| error.to_string())
    };
    let header = |name: &'static str| move |request: &mut Request| request.headers.push((name.into(), "x".into()));
    let hosts = ["http://metadata.tencentyun.com", "http://169.254.0.23", "http://100.100.100.200"];
    for host in hosts {
        let refused = |change: &dyn Fn(&mut Request)| {
            let why = ask(host, change).unwrap_err();
            assert!(why.contains("is asked for metadata only"), "{why}");
        };
        assert_eq!(ask(host, &|_| {}), Ok(host.to_string()));
        assert_eq!(ask(host, &|request| request.method = "PUT"), Ok(host.to_string()));
        assert!(ask(host, &header("x-aliyun-ecs-metadata-token")).is_ok());
        refused(&header("authorization"));
        refused(&header("x-tc-token"));
        refused(&|request| request.body = b"x".to_vec());
        refused(&|request| request.query = "x=y".to_string());
        refused(&|request| request.path = "/".to_string());
        refused(&|request| request.method = "POST");
        // No account's endpoint can be one.
        assert!(matches!(Origin::parse(host), Err(OriginError::PlainHttp(_))));
    }
    for other in ["http://169.254.0.23:8080", "http://169.254.169.254", "http://x.metadata.tencentyun.com"] {
        let why = ask(other, &|_| {}).unwrap_err();
        assert!(why.contains("plain http is allowed to this machine only"), "{other}: {why}");
    }
}

#[tokio::test]
async fn a_service_beside_this_machine_that_hangs_is_given_up_after_two_seconds() {
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let begun = std::time::Instant::now();
    let answer = Network::beside().unwrap().send(&request(&authority, "GET", "", "")).await;
    assert!(matches!(answer, Err(TransportError::NoAnswer(_))), "{answer:?}");
    let took = begun.elapsed().as_secs_f32();
    assert!((1.9..8.0).contains(&took), "{took} s");
}
