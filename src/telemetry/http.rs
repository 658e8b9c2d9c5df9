//! The daemon's pages: /metrics, /healthz, /readyz. They only show: no request changes anything, none is read beyond its
//! head. No client can keep the others out for long: a connection is served once, and lives [`LIFE`] at most; of more than
//! [`CONNECTIONS`] at once the rest wait in the listener's queue.
//!
//! axum 0.8.9 gives hyper no timer, so hyper's own limit on reading a head (30 s, hyper 1.12) does not hold: an idle
//! socket would stay open for ever. Hence the limits here, at the socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::model::{Duration, Timestamp};

use super::metrics::Metrics;

/// The loop has hung if it did not turn within this.
pub const TURNS_WITHIN: Duration = Duration::from_secs(30);
/// No connection lives longer: longer than a scrape may take (10 s unless told otherwise), shorter than patience.
pub const LIFE: Duration = Duration::from_secs(15);
/// So many connections are open at once.
pub const CONNECTIONS: usize = 64;

/// What the pages show.
pub struct Pages {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When the scheduler's loop turned last; `None`: not yet.
    pub turned: Box<dyn Fn() -> Option<Timestamp> + Send + Sync>,
    /// Why this process does not drive (`another rekeyd drives`, `the store is not open yet`); `None`: it drives.
    pub not_driving: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Pages {
    /// Whether the loop turns, or since when it does not.
    fn health(&self) -> Result<(), String> {
        turns((self.turned)(), self.clock.now())
    }
    /// Whether this process does its work, or why not.
    fn readiness(&self) -> Result<(), String> {
        (self.not_driving)().map_or(Ok(()), Err)?;
        self.health()
    }
}

/// Whether a loop that turned then turns now. A clock that was set back makes its last turn lie in the future; the next
/// one mends that.
fn turns(last: Option<Timestamp>, now: Timestamp) -> Result<(), String> {
    let Some(last) = last else { return Err("the scheduler's loop has not turned yet".to_string()) };
    let away = now.duration_since(last);
    if away.unsigned_abs() <= TURNS_WITHIN {
        return Ok(());
    }
    Err(match away.is_negative() {
        true => format!("the scheduler's loop turned last {} s ahead of the clock", away.unsigned_abs().as_secs()),
        false => format!("the scheduler's loop turned last {} s ago", away.as_secs()),
    })
}

/// Serves the pages until `stop` comes; then it returns at once, and what is being answered is answered if the process
/// lives long enough.
pub async fn serve(Listening { listener, .. }: Listening, pages: Arc<Pages>, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let bounded = Bounded { listener, clock: Arc::clone(&pages.clock), slots, life: LIFE };
    tokio::select! {
        // Never returns: accept errors are waited out inside.
        _ = axum::serve(bounded, router(pages)) => {}
        () = stop => {}
    }
}

fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/", get(async || "rekeyd\n\n/metrics  for Prometheus\n/healthz  200 while the scheduler's loop turns\n/readyz   200 while this process drives\n"))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async |State(pages): State<Arc<Pages>>| verdict(pages.health())))
        .route("/readyz", get(async |State(pages): State<Arc<Pages>>| verdict(pages.readiness())))
        .layer(map_response(close))
        .with_state(pages)
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    match pages.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn verdict(verdict: Result<(), String>) -> (StatusCode, String) {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_string()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Each connection is served once: so the end of a connection's life never meets the next scrape.
async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A port that is taken, for [`serve`].
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Takes it; port 0 lets the system choose one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
    /// Which it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes so many connections at once, each for so long.
struct Bounded {
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    slots: Arc<Semaphore>,
    life: Duration,
}

impl Listener for Bounded {
    type Io = Mortal;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Fails only once closed, and nobody closes it.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let (clock, life) = (Arc::clone(&self.clock), self.life);
        let end = Box::pin(async move {
            let end = clock.now().checked_add(life).unwrap_or(Timestamp::MAX);
            clock.sleep_until(end).await;
        });
        (Mortal { stream, end, over: false, _slot: slot }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends.
struct Mortal {
    stream: TcpStream,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Mortal {
    /// The stream, unless its time is up; asked again then.
    fn stream(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        self.over = self.over || self.end.as_mut().poll(context).is_ready();
        match self.over {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(cx)?.poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
