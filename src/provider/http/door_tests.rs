//! Tests of the door, and the scripted transport and manual clock that the clients' tests share.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;

use super::*;

/// A clock that stands still until somebody sleeps on it.
pub(crate) struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    pub(crate) fn at(text: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(text.parse().unwrap())))
    }
    pub(crate) fn set(&self, text: &str) {
        *self.0.lock().unwrap() = text.parse().unwrap();
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    async fn sleep_until(&self, until: Timestamp) {
        let mut now = self.0.lock().unwrap();
        *now = until.max(*now);
    }
}

/// Answers from a script, and keeps what was asked.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<VecDeque<Result<Response, TransportError>>>,
    pub(crate) asked: Mutex<Vec<Request>>,
}

impl Script {
    pub(crate) fn of(answers: impl IntoIterator<Item = Result<Response, TransportError>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() })
    }
    /// Fails the test if answers are left over.
    pub(crate) fn is_played_out(&self) {
        assert_eq!(self.answers.lock().unwrap().len(), 0, "answers that nobody asked for");
    }
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        self.asked.lock().unwrap().push(request.clone());
        self.answers.lock().unwrap().pop_front().expect("one request more than the script has answers")
    }
}

/// An answer with a body and headers.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Response, TransportError> {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Ok(Response { status, headers, body: body.as_bytes().to_vec() })
}

const START: &str = "2026-11-22T00:00:00Z";

fn door(script: &Arc<Script>, clock: &Arc<ManualClock>) -> Door {
    let rates = BTreeMap::from([("Slow".to_string(), 1)]);
    Door::new(script.clone(), clock.clone(), &rates, keys("AKIDfake", "hush-hush").into(), 7)
}

fn keys(id: &str, secret: &str) -> Credentials {
    Credentials { access_key_id: id.to_string(), access_key_secret: secret.into(), session_token: None }
}

fn sign(now: Timestamp, nonce: u128, _: &Credentials) -> Request {
    Request {
        method: "POST",
        origin: "http://127.0.0.1:1".to_string(),
        path: "/".to_string(),
        query: String::new(),
        headers: vec![("signed".to_string(), format!("{now} {nonce:x}"))],
        body: Vec::new(),
    }
}

/// 200 is well; 429 throttled; all others unavailable, outcome unknown.
fn parse(response: &Response) -> Result<u16, Error> {
    let text = String::from_utf8_lossy(&response.body).into_owned();
    let throttled = Error { code: "429".to_string(), message: text, ..too_late("Act") };
    match response.status {
        200 => Ok(200),
        429 => Err(throttled),
        _ => Err(Error { kind: Kind::Unavailable, effect: Effect::Unknown, ..throttled }),
    }
}

fn change(clock: &ManualClock, seconds: u64) -> Intent {
    Intent::Change { before: clock.now().saturating_add(Duration::from_secs(seconds)).unwrap() }
}

#[tokio::test]
async fn every_attempt_is_signed_anew_with_its_own_time_and_nonce() {
    let clock = ManualClock::at(START);
    let script =
        Script::of([answer(429, &[], ""), Err(TransportError::NotSent("refused".into())), answer(200, &[], "")]);
    let door = door(&script, &clock);
    assert_eq!(door.call("Act", change(&clock, 20), &sign, &parse).await, Ok(200));
    let asked = script.asked.lock().unwrap();
    let mut signed: Vec<&str> = asked.iter().map(|request| request.headers[0].1.as_str()).collect();
    signed.sort();
    signed.dedup_by_key(|text| text.split(' ').next().unwrap());
    assert_eq!(signed.len(), 3, "three times");
    let nonces: std::collections::BTreeSet<_> = signed.iter().map(|text| text.split(' ').nth(1).unwrap()).collect();
    assert_eq!(nonces.len(), 3, "three nonces");
}

#[tokio::test]
async fn a_change_of_unknown_outcome_is_sent_once() {
    let clock = ManualClock::at(START);
    let check = async |first: Result<Response, TransportError>, kind: Kind| {
        let script = Script::of([first]);
        let error = door(&script, &clock).call("Act", change(&clock, 20), &sign, &parse).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (kind, Effect::Unknown));
        assert_eq!(script.asked.lock().unwrap().len(), 1);
    };
    check(answer(503, &[], ""), Kind::Unavailable).await;
    check(Err(TransportError::NoAnswer("time-out".into())), Kind::Unavailable).await;
    check(Err(TransportError::TooLarge), Kind::Protocol).await;
}

#[tokio::test]
async fn a_read_is_repeated_through_outages_for_thirty_seconds_at_most() {
    let clock = ManualClock::at(START);
    let script = Script::of([
        answer(503, &[], ""),
        Err(TransportError::NoAnswer("time-out".into())),
        answer(429, &[], ""),
        answer(200, &[], ""),
    ]);
    assert_eq!(door(&script, &clock).call("Act", Intent::Read, &sign, &parse).await, Ok(200));
    script.is_played_out();

    let script = Script::of((0..100).map(|_| answer(503, &[], "")));
    let begun = clock.now();
    let error = door(&script, &clock).call("Act", Intent::Read, &sign, &parse).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let spent = clock.now().duration_since(begun).as_secs();
    assert!((15..30).contains(&spent), "{spent} s");
    let tries = script.asked.lock().unwrap().len();
    assert!((6..12).contains(&tries), "{tries} attempts");
}

#[tokio::test]
async fn a_change_is_never_sent_at_or_after_its_before() {
    let clock = ManualClock::at(START);
    let script = Script::of([]);
    for seconds_ago in [0, 5] {
        let before = clock.now().saturating_sub(Duration::from_secs(seconds_ago)).unwrap();
        let intent = Intent::Change { before };
        let error = door(&script, &clock).call("Act", intent, &sign, &parse).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (Kind::Throttled, Effect::NotDone));
    }
    // Throttled for longer than there is leave: the cloud's own answer comes back, at once.
    let script = Script::of([answer(429, &[("retry-after", "5")], "too many")]);
    let error = door(&script, &clock).call("Act", change(&clock, 5), &sign, &parse).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.retry_after), ("429", Some(Duration::from_secs(5))));
    assert_eq!(clock.now(), START.parse().unwrap());
}

#[tokio::test]
async fn a_change_whose_turn_comes_too_late_is_not_sent() {
    let clock = ManualClock::at(START);
    let script = Script::of([answer(200, &[], "")]);
    let door = door(&script, &clock);
    assert_eq!(door.call("Slow", change(&clock, 1), &sign, &parse).await, Ok(200));
    let error = door.call("Slow", change(&clock, 1), &sign, &parse).await.unwrap_err();
    assert_eq!((error.kind, error.effect, error.code.as_str()), (Kind::Throttled, Effect::NotDone, "rate"));
    script.is_played_out();
}

#[tokio::test]
async fn the_cloud_is_given_the_pause_it_asks_for() {
    let clock = ManualClock::at(START);
    let script = Script::of([answer(429, &[("x-acs-retry-after", "12000")], ""), answer(200, &[], "")]);
    assert_eq!(door(&script, &clock).call("Act", Intent::Read, &sign, &parse).await, Ok(200));
    assert_eq!(clock.now(), "2026-11-22T00:00:12Z".parse().unwrap());
}

#[tokio::test]
async fn the_newest_date_header_tells_the_clock_difference() {
    let clock = ManualClock::at("2026-11-22T00:01:30Z");
    let script = Script::of([
        answer(200, &[("date", "Sun, 22 Nov 2026 00:00:00 GMT")], ""),
        answer(200, &[], ""),
        answer(200, &[("date", "Sun, 22 Nov 2026 00:02:00 GMT")], ""),
    ]);
    let door = door(&script, &clock);
    assert_eq!(door.clock_difference(), None);
    for expect in [90, 90, -30] {
        door.call("Act", Intent::Read, &sign, &parse).await.unwrap();
        assert_eq!(door.clock_difference(), Some(SignedDuration::from_secs(expect)));
    }
}

#[tokio::test]
async fn no_error_carries_a_secret() {
    let clock = ManualClock::at(START);
    let script = Script::of([answer(500, &[], "hush-hush is no key; Signature=abc")]);
    let error = door(&script, &clock).call("Act", change(&clock, 5), &sign, &parse).await.unwrap_err();
    assert_eq!(error.message, "[secret] is no key; Signature=[redacted]");
}

/// Action, outcome, whether it was sent, seconds taken, seconds of difference.
type Note = (String, Result<(), Kind>, bool, u64, Option<i64>);

/// Keeps what it hears.
#[derive(Default)]
struct Notes(Mutex<Vec<Note>>);

impl Witness for Notes {
    fn heard(&self, heard: &Heard<'_>) {
        assert_eq!(heard.provider, ProviderKind::BaiduBcc);
        let difference = heard.clock_difference.map(|difference| difference.as_secs());
        let note = (heard.action.to_string(), heard.outcome, heard.sent, heard.took.as_secs(), difference);
        self.0.lock().unwrap().push(note);
    }
}

/// A network that takes two seconds.
struct Slow(Arc<Script>, Arc<ManualClock>);

#[async_trait]
impl Transport for Slow {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let answered = self.1.now().saturating_add(Duration::from_secs(2)).unwrap();
        self.1.sleep_until(answered).await;
        self.0.send(request).await
    }
}

#[tokio::test]
async fn the_witness_hears_each_attempt_and_what_was_not_sent() {
    let clock = ManualClock::at(START);
    let script = Script::of([
        answer(429, &[("date", "Sun, 22 Nov 2026 00:00:00 GMT")], ""),
        Err(TransportError::NotSent("refused".into())),
        answer(200, &[], ""),
        answer(503, &[], ""),
    ]);
    let notes = Arc::new(Notes::default());
    let rates = BTreeMap::from([("Slow".to_string(), 1)]);
    let slow = Arc::new(Slow(script.clone(), clock.clone()));
    let door = Door::new(slow, clock.clone(), &rates, keys("AKIDfake", "fake").into(), 7)
        .heard_by(ProviderKind::BaiduBcc, notes.clone());
    assert_eq!(door.call("Act", change(&clock, 20), &sign, &parse).await, Ok(200));
    assert!(door.call("Slow", change(&clock, 1), &sign, &parse).await.is_err());
    clock.set(START);
    assert!(door.call("Slow", change(&clock, 1), &sign, &parse).await.is_err());
    // Given up before its turn: nothing was tried.
    assert!(door.call("Act", change(&clock, 0), &sign, &parse).await.is_err());
    script.is_played_out();
    let heard = notes.0.lock().unwrap().clone();
    let act = |outcome| ("Act".to_string(), outcome, true, 2, Some(2));
    let expect = [
        act(Err(Kind::Throttled)),
        act(Err(Kind::Unavailable)),
        act(Ok(())),
        ("Slow".to_string(), Err(Kind::Unavailable), true, 2, Some(2)),
        ("Slow".to_string(), Err(Kind::Throttled), false, 0, Some(2)),
    ];
    assert_eq!(heard, expect);
}

#[tokio::test]
async fn an_expired_signature_is_worth_one_repetition_with_a_fresh_one() {
    /// 403 says that the signature is too old, 401 that the credentials are no good.
    fn parse(response: &Response) -> Result<u16, Error> {
        let denied = |code: &str| Error { kind: Kind::Denied, code: code.to_string(), ..too_late("Act") };
        match response.status {
            200 => Ok(200),
            403 => Err(denied("Old")),
            401 => Err(denied("NoGood")),
            _ => Err(Error { effect: Effect::Unknown, ..denied("Old") }),
        }
    }
    let check = async |statuses: &[u16], expect: Result<u16, &str>| {
        let clock = ManualClock::at(START);
        let script = Script::of(statuses.iter().map(|status| answer(*status, &[], "")));
        let door = door(&script, &clock).once_more_on(&["Old"]);
        let result = door.call("Act", change(&clock, 20), &sign, &parse).await;
        assert_eq!(result.map_err(|error| error.code), expect.map_err(str::to_string), "{statuses:?}");
        script.is_played_out();
        let asked = script.asked.lock().unwrap();
        let signed: std::collections::BTreeSet<&str> = asked.iter().map(|sent| sent.headers[0].1.as_str()).collect();
        assert_eq!(signed.len(), statuses.len(), "each its own signature");
    };
    check(&[403, 200], Ok(200)).await;
    check(&[403, 403], Err("Old")).await;
    check(&[403, 401], Err("NoGood")).await;
    check(&[401], Err("NoGood")).await;
    // Of unknown outcome: whatever its code, never sent twice.
    check(&[500], Err("Old")).await;
    // No leave for a second attempt.
    let clock = ManualClock::at(START);
    let script = Script::of([answer(403, &[], "")]);
    let before = clock.now().saturating_add(Duration::from_millis(100)).unwrap();
    let door = door(&script, &clock).once_more_on(&["Old"]);
    let error = door.call("Act", Intent::Change { before }, &sign, &parse).await.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Denied, Effect::NotDone));
}

#[tokio::test]
async fn a_denied_call_is_sent_again_where_there_are_other_credentials_by_then() {
    // The first two denials find nothing newer; at the third somebody has replaced them meanwhile.
    let clock = ManualClock::at(START);
    let reads = Arc::new(Mutex::new(VecDeque::from(["old", "old", "new", "new", "new", "left"])));
    let from = reads.clone();
    let read = move || {
        let mut reads = from.lock().unwrap();
        Ok(keys("AKIDfake", if reads.len() > 1 { reads.pop_front().unwrap() } else { "newest" }))
    };
    let keyring = Keyring::read("here".to_string(), Arc::new(read));
    let check = async |answers: &[u16], expect: Result<u16, Kind>, signed: &[&str]| {
        let script = Script::of(answers.iter().map(|status| answer(*status, &[], "")));
        let door = Door::new(script.clone(), clock.clone(), &BTreeMap::new(), keyring.clone(), 7);
        let sign = |_: Timestamp, _: u128, keys: &Credentials| {
            let secret = secrecy::ExposeSecret::expose_secret(&keys.access_key_secret).to_string();
            Request { headers: vec![("by".to_string(), secret)], ..sign(Timestamp::UNIX_EPOCH, 0, keys) }
        };
        let denied = Error { kind: Kind::Denied, ..too_late("Act") };
        let parse = |response: &Response| if response.status == 200 { Ok(200) } else { Err(denied.clone()) };
        let outcome = door.call("Act", change(&clock, 20), &sign, &parse).await.map_err(|error| error.kind);
        assert_eq!(outcome, expect);
        script.is_played_out();
        let asked = script.asked.lock().unwrap();
        assert_eq!(asked.iter().map(|one| one.headers[0].1.as_str()).collect::<Vec<_>>(), signed);
    };
    check(&[401], Err(Kind::Denied), &["old"]).await;
    check(&[401], Err(Kind::Denied), &["new"]).await;
    check(&[401, 200], Ok(200), &["new", "newest"]).await;
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_account_is_to_blame() {
    let (clock, script) = (ManualClock::at(START), Script::of([]));
    let keyring = Keyring::read("here".to_string(), Arc::new(|| Err("the file is gone".to_string())));
    let door = Door::new(script.clone(), clock.clone(), &BTreeMap::new(), keyring, 7);
    let error = door.call("Act", change(&clock, 20), &sign, &parse).await.unwrap_err();
    assert_eq!((error.kind, error.effect, error.blame), (Kind::Unavailable, Effect::NotDone, Blame::Account));
    assert_eq!(error.to_string(), "Act: no_credentials: the file is gone");
}

#[tokio::test]
async fn denied_credentials_that_cannot_be_read_again_are_waited_for_and_the_place_is_named() {
    let clock = ManualClock::at(START);
    let place: Arc<Mutex<Result<Credentials, String>>> = Arc::new(Mutex::new(Ok(keys("AKIDfake", "old"))));
    let from = place.clone();
    let keyring = Keyring::read("here".to_string(), Arc::new(move || from.lock().unwrap().clone()));
    let check = async |codes: &[&str], millis: u64, expect: Result<u16, &str>| {
        let script = Script::of(codes.iter().map(|code| answer(if code.is_empty() { 200 } else { 403 }, &[], code)));
        let door = Door::new(script.clone(), clock.clone(), &BTreeMap::new(), keyring.clone(), 7);
        let parse = |response: &Response| match response.status {
            200 => Ok(200),
            _ => Err(Error {
                kind: Kind::Denied,
                blame: Blame::Account,
                code: String::from_utf8(response.body.clone()).unwrap(),
                message: "no".to_string(),
                ..too_late("Act")
            }),
        };
        let before = clock.now().saturating_add(Duration::from_millis(millis)).unwrap();
        let outcome = door.call("Act", Intent::Change { before }, &sign, &parse).await;
        match &outcome {
            Err(error) if error.code == NO_CREDENTIALS => {
                assert_eq!((error.kind, error.effect), (Kind::Unavailable, Effect::NotDone));
            }
            Err(error) => assert_eq!(error.kind, Kind::Denied),
            Ok(_) => {}
        }
        assert_eq!(outcome.map_err(|error| error.to_string()), expect.map_err(str::to_string), "{codes:?}");
        script.is_played_out();
    };
    const GONE: &str = "/a is gone";
    let lacking =
        |code: &str| format!("Act: no_credentials: /a is gone; those from before are denied by the cloud ({code})");
    check(&[""], 20_000, Ok(200)).await;
    check(&["AuthFailure.TokenFailure"], 20_000, Err("Act: AuthFailure.TokenFailure: no")).await;
    *place.lock().unwrap() = Err(GONE.to_string());
    // In force for as long as the cloud takes them; a denial of a permission, or of the time, is told as one.
    check(&[""], 20_000, Ok(200)).await;
    for code in ["UnauthorizedOperation", "Forbidden.RAM", "RequestExpired"] {
        check(&[code], 20_000, Err(&format!("Act: {code}: no"))).await;
        check(&[""], 20_000, Ok(200)).await;
    }
    // A token that BCC does not take, and a call without the time for a second attempt.
    for (code, millis) in [("AccessDenied", 20_000), ("InvalidSecurityToken.Expired", 100)] {
        check(&[code], millis, Err(&lacking(code))).await;
        // Nothing is sent from then on …
        check(&[], 20_000, Err(&lacking(code))).await;
        // … until they can be read.
        *place.lock().unwrap() = Ok(keys("AKIDfake", "new"));
        check(&[""], 20_000, Ok(200)).await;
        *place.lock().unwrap() = Err(GONE.to_string());
    }
}
