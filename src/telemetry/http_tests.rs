//! Tests of the pages, over real sockets on loopback.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Shows what it is told; a sleep takes its real time.
struct HandClock(Mutex<Timestamp>);

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    async fn sleep_until(&self, until: Timestamp) {
        if let Ok(left) = Duration::try_from(until.duration_since(self.now())) {
            tokio::time::sleep(left).await;
        }
    }
}

/// Pages that are served, and what they depend on.
struct Desk {
    clock: Arc<HandClock>,
    turned: Arc<Mutex<Option<Timestamp>>>,
    waits: Arc<Mutex<Option<String>>>,
    pages: Arc<Pages>,
    address: std::net::SocketAddr,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

impl Desk {
    async fn open(life: Duration, slots: usize) -> Self {
        let clock = Arc::new(HandClock(Mutex::new(at(0))));
        let (turned, waits) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (asked, waited) = (Arc::clone(&turned), Arc::clone(&waits));
        let pages = Arc::new(Pages {
            metrics: Arc::new(Metrics::new().unwrap()),
            clock: clock.clone(),
            turned: Box::new(move || *asked.lock().unwrap()),
            not_driving: Box::new(move || waited.lock().unwrap().clone()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = Bounded { listener, clock: clock.clone(), slots: Arc::new(Semaphore::new(slots)), life };
        let router = router(Arc::clone(&pages));
        tokio::spawn(async move { axum::serve(bounded, router).await });
        Self { clock, turned, waits, pages, address }
    }

    /// Sends these bytes and reads to the end.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }
    #[track_caller]
    fn set(&self, now: i64, turned: Option<i64>, waits: Option<&str>) {
        *self.clock.0.lock().unwrap() = at(now);
        *self.turned.lock().unwrap() = turned.map(at);
        *self.waits.lock().unwrap() = waits.map(str::to_string);
    }
}

#[test]
fn a_loop_turns_if_it_turned_within_thirty_seconds() {
    let check = |last: Option<i64>, now: i64, expect: Result<(), &str>| {
        assert_eq!(turns(last.map(at), at(now)), expect.map_err(str::to_string), "{last:?} {now}");
    };
    check(None, 0, Err("the scheduler's loop has not turned yet"));
    check(Some(0), 0, Ok(()));
    check(Some(0), 30, Ok(()));
    check(Some(0), 31, Err("the scheduler's loop turned last 31 s ago"));
    check(Some(30), 0, Ok(()));
    check(Some(3600), 0, Err("the scheduler's loop turned last 3600 s ahead of the clock"));
}

#[tokio::test]
async fn health_is_the_loops_and_readiness_the_drivers() {
    let desk = Desk::open(LIFE, CONNECTIONS).await;
    let check = async |health: (u16, &str), ready: (u16, &str)| {
        assert_eq!(desk.get("/healthz").await, (health.0, format!("{}\n", health.1)));
        assert_eq!(desk.get("/readyz").await, (ready.0, format!("{}\n", ready.1)));
    };
    let not_yet = "the scheduler's loop has not turned yet";
    check((503, not_yet), (503, not_yet)).await;
    desk.set(10, Some(5), None);
    check((200, "ok"), (200, "ok")).await;
    desk.set(10, Some(5), Some("another rekeyd drives"));
    check((200, "ok"), (503, "another rekeyd drives")).await;
    desk.set(46, Some(5), None);
    let hung = "the scheduler's loop turned last 41 s ago";
    check((503, hung), (503, hung)).await;
}

#[tokio::test]
async fn the_metrics_come_in_prometheus_own_format() {
    let desk = Desk::open(LIFE, CONNECTIONS).await;
    desk.pages.metrics.driving(true);
    let answer = desk.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains("\r\nconnection: close"), "{head}");
    assert!(body.contains("\nrekeyd_driver 1\n"), "{body}");
    assert!(body.contains("\nprocess_open_fds "), "{body}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_and_bodies_are_not_read() {
    let desk = Desk::open(LIFE, CONNECTIONS).await;
    let (status, index) = desk.get("/").await;
    assert!(status == 200 && ["/metrics", "/healthz", "/readyz"].iter().all(|path| index.contains(path)), "{index}");
    for path in ["/metric", "/metrics/", "/..", "/favicon.ico", "/debug/pprof"] {
        assert_eq!(desk.get(path).await.0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let answer = desk.send(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    // It promises a terabyte, and is answered before it has sent a byte of it.
    let answer = desk.send("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(desk.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(desk.send("rubbish\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn idle_and_slow_sockets_do_not_keep_the_others_out() {
    // Two slots, and three who say nothing or half a head. The life is long enough for an answer on a busy machine.
    let desk = Desk::open(Duration::from_secs(2), 2).await;
    desk.set(10, Some(5), None);
    let mut idle = Vec::new();
    for number in 0..3 {
        let mut stream = TcpStream::connect(desk.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        }
        idle.push(stream);
    }
    let answered = tokio::time::timeout(Duration::from_secs(20), desk.get("/healthz")).await;
    assert_eq!(answered.unwrap(), (200, "ok\n".to_string()));
    for mut stream in idle {
        let mut rest = Vec::new();
        // Closed or reset; not left open.
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn serving_ends_when_it_is_told_to() {
    let desk = Desk::open(LIFE, CONNECTIONS).await;
    let listener = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let pages = Arc::clone(&desk.pages);
    let server = tokio::spawn(serve(listener, pages, async move { drop(stopped.await) }));
    // An open connection does not hold it up.
    let _idle = TcpStream::connect(address).await.unwrap();
    let other = Desk { address, ..desk };
    assert_eq!(other.get("/").await.0, 200);
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
