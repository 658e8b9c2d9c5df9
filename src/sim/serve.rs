//! The socket door: the same clouds over real HTTP on loopback, one port a cloud and one for control. Time is real
//! here. It must never bind anything but 127.0.0.1 (the guests: other addresses of loopback), and must pass on what it receives byte for byte, since that is
//! what was signed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request as Received, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response as Reply};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::door::handle;
use super::faults::Faults;
use super::fleet;
use super::guest::{GuestError, Guests, Room, Sshd};
use super::machine::Power;
use super::mischief;
use super::world::{World, later};
use crate::clock::{Clock, SystemClock};
use crate::model::ProviderKind;
use crate::net::Request;

/// The largest request taken in: a little above the largest that any of the clouds takes.
const RECEIVED_MAX: usize = 11 * 1024 * 1024;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tagged machines in each cloud; a tenth of that in strangers' machines comes on top.
    pub instances: usize,
    /// So many fleets share them by turns, told apart by the tag `fleet`; 0: one fleet, without such a tag.
    pub fleets: usize,
    /// Where the ready file goes, if one is wanted.
    pub ready_file: Option<PathBuf>,
    /// The seed of ids, credentials, fleets and faults.
    pub seed: u64,
    /// Between a request's arrival and its answer.
    pub latency: Duration,
    /// How long stops, starts, reboots and binds take.
    pub operation_time: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Real SSH servers as the machines' guests, if they are wanted.
    pub sshd: Option<Sshd>,
}

impl Default for Options {
    /// Ten machines a cloud, seed 1, 20 ms of latency, operations of 200 ms, no faults, no guests, no ready file.
    fn default() -> Self {
        Self {
            instances: 10,
            fleets: 0,
            ready_file: None,
            seed: 1,
            latency: Duration::from_millis(20),
            operation_time: Duration::from_millis(200),
            faults: Faults::default(),
            sshd: None,
        }
    }
}

/// What a client needs to know of the served clouds: the ready file's content.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// The clouds.
    pub clouds: Vec<ReadyCloud>,
    /// The control port's URL; `GET` its `/state` and `/violations`, `POST` to its `/meddle`, `/reimage`, `/hostkey`.
    pub control: String,
}

/// One served cloud. The credentials are the simulator's own and open nothing else.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyCloud {
    /// Which cloud.
    pub provider: ProviderKind,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The region to name.
    pub region: String,
    /// The access key id.
    pub access_key_id: String,
    /// Its secret.
    pub access_key_secret: String,
    /// The tags that select the fleet.
    pub tags: BTreeMap<String, String>,
    /// How many machines bear them.
    pub instances: usize,
    /// The values of the tag `fleet` that machines bear besides, if several fleets share them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fleets: Vec<String>,
    /// How to log in to its machines, where they have guests. Their addresses the cloud shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<ReadySsh>,
}

/// How to log in to a cloud's machines.
#[derive(Clone, Debug, Serialize)]
pub struct ReadySsh {
    /// The port of every machine.
    pub port: u16,
    /// The one user who may log in.
    pub user: String,
}

/// Why the simulator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No loopback port was to be had.
    #[error("cannot listen on loopback: {0}")]
    Listen(std::io::Error),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The guests cannot be served.
    #[error(transparent)]
    Guests(#[from] GuestError),
}

/// A simulator that serves, until it is shut down or dropped.
pub struct Running {
    ready: Ready,
    world: Arc<Mutex<World>>,
    servers: JoinSet<()>,
    // The guests' files go with it.
    _room: Option<Room>,
}

impl Running {
    /// What the ready file says.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }
    /// The world behind the sockets.
    pub fn world(&self) -> Arc<Mutex<World>> {
        Arc::clone(&self.world)
    }
    /// Serves until `signal` comes.
    pub async fn until(mut self, signal: impl Future<Output = ()>) {
        signal.await;
        self.servers.shutdown().await;
    }
}

/// Opens the four clouds, furnishes them, listens, and writes the ready file (whole or not at all).
pub async fn serve(options: Options) -> Result<Running, ServeError> {
    let mut world = World::new(options.seed, SystemClock.now());
    world.faults = options.faults;
    world.settings.latency = options.latency;
    world.settings.operation_time = options.operation_time;
    // The first look after a call still shows the old state: it comes one latency after the call at the soonest.
    let lag = (options.operation_time / 4).min(Duration::from_millis(50));
    world.settings.visibility_lag = options.latency.saturating_add(lag);
    world.settings.reboot_delay = options.operation_time / 2;
    world.settings.record_early = 0.5;

    let mut ready = Ready { clouds: Vec::new(), control: String::new() };
    let mut listeners = Vec::new();
    for kind in ProviderKind::ALL {
        let cloud = world.open_cloud(kind);
        fleet::furnish_fleets(&mut world, cloud, options.instances, options.fleets);
        let (listener, endpoint) = listen().await?;
        listeners.push((cloud, listener, endpoint.clone()));
        let here = world.cloud(cloud);
        ready.clouds.push(ReadyCloud {
            provider: kind,
            endpoint,
            region: here.region.clone(),
            access_key_id: here.access_key_id.clone(),
            access_key_secret: here.access_key_secret.clone(),
            tags: fleet::TAGS.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            instances: options.instances,
            fleets: fleet::fleet_names(options.fleets).collect(),
            ssh: None,
        });
    }

    let world = Arc::new(Mutex::new(world));
    let mut servers = JoinSet::new();
    let (guests, room) = match &options.sshd {
        Some(sshd) => Some(Guests::open(sshd, options.seed, &world)?).unzip(),
        None => (None, None),
    };
    if let Some(guests) = &guests {
        let ssh = ReadySsh { port: guests.port(), user: guests.user().to_string() };
        ready.clouds.iter_mut().for_each(|cloud| cloud.ssh = Some(ssh.clone()));
        servers.spawn(Arc::clone(guests).watch(Arc::clone(&world)));
    }
    let truth = Truth { world: Arc::clone(&world), guests };
    for (cloud, listener, origin) in listeners {
        let port = Port { truth: truth.clone(), cloud, origin };
        let router = Router::new().fallback(receive).layer(DefaultBodyLimit::max(RECEIVED_MAX)).with_state(port);
        servers.spawn(run(listener, router));
    }
    let (listener, control) = listen().await?;
    ready.control = control;
    let router = Router::new()
        .route("/state", get(async |State(truth): State<Truth>| page(truth.with(|world| state(world)))))
        .route("/violations", get(async |State(truth): State<Truth>| page(truth.with(|world| violations(world)))))
        .route("/meddle", post(meddle))
        .route("/reimage", post(meddle))
        .route("/hostkey", post(meddle))
        .with_state(truth);
    servers.spawn(run(listener, router));

    if let Some(path) = &options.ready_file {
        write_whole(path, &json!(ready).to_string())
            .map_err(|source| ServeError::ReadyFile { path: path.clone(), source })?;
    }
    Ok(Running { ready, world, servers, _room: room })
}

async fn listen() -> Result<(TcpListener, String), ServeError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ServeError::Listen)?;
    let address = listener.local_addr().map_err(ServeError::Listen)?;
    Ok((listener, format!("http://{address}")))
}

async fn run(listener: TcpListener, router: Router) {
    // Never returns: accept errors are waited out inside.
    let _ = axum::serve(listener, router).await;
}

/// Writes beside the file and renames, so that who waits for it never reads half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world and its guests.
#[derive(Clone)]
struct Truth {
    world: Arc<Mutex<World>>,
    guests: Option<Arc<Guests>>,
}

impl Truth {
    /// Does something in the world as it is now. When this returns, the guests are as the world says.
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.world);
        world.advance(SystemClock.now());
        let outcome = act(&mut world);
        if let Some(guests) = &self.guests {
            guests.tend(&mut world);
        }
        outcome
    }
}

/// One cloud's port.
#[derive(Clone)]
struct Port {
    truth: Truth,
    cloud: usize,
    origin: String,
}

async fn receive(State(port): State<Port>, received: Received) -> Reply {
    let (parts, body) = received.into_parts();
    let method = match parts.method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    let Ok(body) = axum::body::to_bytes(body, RECEIVED_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let request = Request {
        method,
        origin: port.origin.clone(),
        path: parts.uri.path().to_string(),
        query: parts.uri.query().unwrap_or_default().to_string(),
        headers: parts.headers.iter().map(header).collect(),
        body: body.to_vec(),
    };
    let outcome = port.truth.with(|world| handle(world, port.cloud, SystemClock.now(), &request));
    SystemClock.sleep_until(later(SystemClock.now(), outcome.delay)).await;
    let Some(reply) = outcome.reply else {
        return hang_up();
    };
    let mut answer = Reply::new(Body::from(reply.body));
    *answer.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

async fn meddle(State(truth): State<Truth>, uri: Uri) -> Reply {
    match truth.with(|world| mischief::commit(world, uri.path(), uri.query().unwrap_or_default())) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// An answer whose body fails before its first byte: the server drops the connection with nothing written.
fn hang_up() -> Reply {
    let nothing = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("hung up on request")) });
    Reply::new(Body::from_stream(nothing))
}

fn page(value: Value) -> Reply {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The truth of every cloud, as the control port tells it. Machines that are gone are left out.
fn state(world: &World) -> Value {
    let clouds = world.clouds().iter().map(|cloud| {
        let instances: Vec<Value> = cloud
            .machines()
            .iter()
            .filter(|machine| machine.power != Power::Gone)
            .map(|m| {
                let (state, address) = (m.power.as_str(), &m.private_address);
                let keys = &m.record_keys;
                json!({ "id": m.id, "state": state, "key_pairs": keys, "address": address, "boots": m.boots })
            })
            .collect();
        let pairs: Vec<Value> = cloud
            .key_pairs()
            .iter()
            .map(|pair| json!({ "id": pair.id, "name": pair.name, "public_key": pair.line }))
            .collect();
        let (calls, legacy) = (cloud.calls(), cloud.legacy_calls());
        json!({
            "provider": cloud.kind, "instances": instances, "key_pairs": pairs, "calls": calls, "legacy_calls": legacy,
        })
    });
    json!({ "clouds": clouds.collect::<Vec<_>>() })
}

/// The rules that clients broke, as the control port tells them.
fn violations(world: &World) -> Value {
    let broken = world.violations().map(|violation| {
        json!({
            "provider": violation.provider,
            "at": violation.at,
            "action": violation.action,
            "rule": format!("{:?}", violation.rule),
            "detail": violation.detail,
        })
    });
    json!({ "violations": broken.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::sim::Weather;

    /// Sends a request's bytes and reads until the server closes.
    async fn exchange(origin: &str, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(origin.strip_prefix("http://").unwrap()).await.unwrap();
        let length = body.len();
        let host = origin.strip_prefix("http://").unwrap();
        let text = format!("{head}\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    fn quick() -> Options {
        Options { latency: Duration::ZERO, ..Options::default() }
    }

    #[tokio::test]
    async fn the_ready_file_and_the_control_port_tell_the_same_story() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let running = serve(Options { instances: 20, ready_file: Some(path.clone()), ..quick() }).await.unwrap();
        let ready: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(ready, json!(running.ready()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left beside it");
        let clouds = ready["clouds"].as_array().unwrap();
        let kinds: Vec<&str> = clouds.iter().map(|cloud| cloud["provider"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["tencent-lighthouse", "tencent-cvm", "alibaba-ecs", "baidu-bcc"]);
        for cloud in clouds {
            assert!(cloud["endpoint"].as_str().unwrap().starts_with("http://127.0.0.1:"));
            assert_eq!((&cloud["instances"], &cloud["tags"]["role"]), (&json!(20), &json!("web")));
            for name in ["region", "access_key_id", "access_key_secret"] {
                assert!(!cloud[name].as_str().unwrap().is_empty(), "{name}");
            }
        }
        let control = ready["control"].as_str().unwrap();
        let answer = exchange(control, "GET /state HTTP/1.1", "").await;
        let state: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let first = &state["clouds"][0];
        assert_eq!(first["instances"].as_array().unwrap().len(), 22);
        assert!(first["instances"][0]["state"].is_string() && first["instances"][0]["key_pairs"].is_array());
        assert!(first["key_pairs"][0]["public_key"].as_str().unwrap().starts_with("ssh-rsa "));
        assert_eq!(first["calls"], json!({}));
        running.until(async {}).await;
        let gone = TcpStream::connect(control.strip_prefix("http://").unwrap()).await;
        assert!(gone.is_err(), "and after shutdown nobody listens");
    }

    #[tokio::test]
    async fn a_request_is_judged_as_it_came_and_answered_with_the_clouds_date() {
        let running = serve(quick()).await.unwrap();
        let origin = running.ready().clouds[0].endpoint.clone();
        let head = "POST / HTTP/1.1\r\ncontent-type: application/json\r\nX-TC-Action: DescribeInstances";
        let answer = exchange(&origin, head, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{answer}");
        assert!(answer.contains("MissingParameter") && answer.contains("x-tc-version"), "{answer}");
        let answer = exchange(&origin, "PATCH / HTTP/1.1", "").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        let answer = exchange(&running.ready().control, "GET /violations HTTP/1.1", "").await;
        assert!(answer.contains("\"rule\":\"Malformed\""), "{answer}");
    }

    #[tokio::test]
    async fn a_lost_answer_is_a_closed_connection_without_a_byte() {
        let running = serve(quick()).await.unwrap();
        let origin = running.ready().clouds[0].endpoint.clone();
        lock(&running.world()).faults.script(None, "", 1, Weather::Lost { applied: true });
        assert_eq!(exchange(&origin, "POST / HTTP/1.1", "{}").await, "");
        assert!(exchange(&origin, "POST / HTTP/1.1", "{}").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_ready_file_that_cannot_be_written_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nowhere").join("ready.json");
        let error = serve(Options { ready_file: Some(path.clone()), ..quick() }).await.err().unwrap();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
