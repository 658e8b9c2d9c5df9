//! A tap in the line between provider and cloud: it writes down what was sent and when, brings scripted weather over
//! the next reads or changes whatever they are called, and lets a case act between two calls. It knows the wires just
//! well enough to tell a look from a change (by the action names and verbs of the vendors' pages).

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rekeyd::clock::Clock;
use rekeyd::model::Timestamp;
use rekeyd::net::{Request, Response, Transport, TransportError};
use rekeyd::sim::{Direct, VirtualClock, Weather, World};

/// Which calls are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Reads,
    Changes,
    All,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Timestamp,
    pub change: bool,
    pub origin: String,
    /// To the legacy endpoint.
    pub legacy: bool,
}

/// Acts right before a call is sent; an answer given here keeps the call from the cloud.
pub type Hook = Box<dyn FnMut(&Request, &mut World) -> Option<Result<Response, TransportError>> + Send>;

pub struct Tap {
    inner: Direct,
    world: Arc<Mutex<World>>,
    clock: Arc<VirtualClock>,
    sent: Mutex<Vec<Sent>>,
    signatures: Mutex<Vec<String>>,
    weather: Mutex<Vec<(Which, u32, Weather)>>,
    hook: Mutex<Option<Hook>>,
    answers: Mutex<Vec<Response>>,
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A parameter of a request to the legacy endpoint, decoded.
fn parameter(request: &Request, name: &str) -> Option<String> {
    if !is_legacy(request) {
        return None;
    }
    let wire =
        if request.method == "GET" { request.query.as_str() } else { std::str::from_utf8(&request.body).ok()? };
    let raw = wire.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(raw).decode_utf8().ok()?.into_owned())
}

fn is_legacy(request: &Request) -> bool {
    request.path == "/v2/index.php"
}

fn is_change(request: &Request) -> bool {
    let named = header(request, "x-tc-action").or_else(|| header(request, "x-acs-action")).map(str::to_string);
    match named.or_else(|| parameter(request, "Action")) {
        Some(action) => !action.starts_with("Describe") && !action.starts_with("List"),
        None => request.method != "GET" && !request.path.ends_with("/listByInstanceId"),
    }
}

impl Tap {
    pub fn new(inner: Direct, world: Arc<Mutex<World>>, clock: Arc<VirtualClock>) -> Self {
        Self {
            inner,
            world,
            clock,
            sent: Mutex::default(),
            signatures: Mutex::default(),
            weather: Mutex::default(),
            hook: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// Brings this weather over the next so many calls of a kind.
    pub fn strike(&self, which: Which, times: u32, weather: Weather) {
        self.weather.lock().unwrap().push((which, times, weather));
    }

    /// Fair weather, no hook, and nothing sent yet.
    pub fn calm(&self) {
        self.weather.lock().unwrap().clear();
        *self.hook.lock().unwrap() = None;
        self.sent.lock().unwrap().clear();
        self.answers.lock().unwrap().clear();
    }

    /// The cloud's answers, as they came.
    pub fn answers(&self) -> Vec<Response> {
        self.answers.lock().unwrap().clone()
    }

    pub fn hook(&self, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// How many changes were sent.
    pub fn changes(&self) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| sent.change).count()
    }

    /// Every signature that went over the wire: the last word of the Authorization header, or the parameter.
    pub fn signatures(&self) -> Vec<String> {
        self.signatures.lock().unwrap().clone()
    }
}

#[async_trait]
impl Transport for Tap {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let change = is_change(request);
        let (origin, legacy) = (request.origin.clone(), is_legacy(request));
        let sent = Sent { at: self.clock.now(), change, origin, legacy };
        self.sent.lock().unwrap().push(sent);
        let signature = header(request, "authorization").and_then(|value| value.rsplit(['=', '/']).next());
        let signature = signature.map(str::to_string).or_else(|| parameter(request, "Signature"));
        self.signatures.lock().unwrap().extend(signature);
        {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(hook) = self.hook.lock().unwrap().as_mut()
                && let Some(answer) = hook(request, &mut world)
            {
                return answer;
            }
            let meant = |which: Which| which == Which::All || (which == Which::Changes) == change;
            let mut weather = self.weather.lock().unwrap();
            if let Some((_, left, what)) = weather.iter_mut().find(|(which, left, _)| *left > 0 && meant(*which)) {
                *left -= 1;
                world.faults.script(None, "", 1, what.clone());
            }
        }
        let answer = self.inner.send(request).await;
        self.answers.lock().unwrap().extend(answer.clone());
        answer
    }
}
