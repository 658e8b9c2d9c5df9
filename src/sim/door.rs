//! The one door to the world: a request in, an answer (or none) out. The in-process transport and the sockets both
//! come through here, so that neither can be easier than the other. It knows no cloud: the faces do.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::faults::Weather;
use super::tencent;
use super::world::{Due, World, later};
use crate::model::ProviderKind;
use crate::net::{Request, Response};

/// A call as a face sees it.
pub struct Call<'a> {
    /// Which cloud of the world.
    pub cloud: usize,
    /// The cloud's time when the call was sent: what a signature's clock window is measured against. For a call that
    /// lands late this is earlier than the world's time.
    pub at: Timestamp,
    /// The request, exactly as received.
    pub request: &'a Request,
    /// The request id that the answer bears.
    pub request_id: &'a str,
    /// The action, as [`Face::action`] read it.
    pub action: &'a str,
}

impl Call<'_> {
    /// The header of this name. `None` if it is absent, and also if it comes twice: no cloud signs that.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.request.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() { None } else { value }
    }
}

/// A cloud's wire face: reads requests, checks them as strictly as the cloud does, works on the world, writes answers.
pub trait Face: Sync {
    /// The action that this request calls, for counting and for scripted faults: read without checking anything.
    fn action(&self, request: &Request) -> String;
    /// Carries the call out. The world is already at the time of the call; the door adds the `date` header.
    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response;
    /// The documented answer for too many requests.
    fn throttled(&self, request_id: &str) -> Response;
    /// The documented answer for an action that the account's policy does not allow.
    fn denied(&self, request_id: &str) -> Response;
    /// The documented answer for a fault inside the cloud.
    fn internal_error(&self, request_id: &str) -> Response;
}

/// What comes of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer; `None` when the connection closes without one.
    pub reply: Option<Response>,
    /// How long it takes to come (or the connection to close). The world has changed already.
    pub delay: Duration,
}

/// Whether the request goes to the endpoint that only CVM has.
fn is_legacy(world: &World, cloud: usize, request: &Request) -> bool {
    world.cloud(cloud).kind == ProviderKind::TencentCvm && request.path == tencent::LEGACY_PATH
}

/// The face that a cloud shows to this request.
fn face(world: &mut World, cloud: usize, request: &Request) -> &'static dyn Face {
    let legacy = is_legacy(world, cloud, request);
    match world.cloud(cloud).kind {
        ProviderKind::TencentLighthouse => &tencent::Lighthouse,
        ProviderKind::TencentCvm if legacy => {
            if world.rng.chance(world.faults.flat) {
                &tencent::FLAT
            } else {
                &tencent::BY_VERSION
            }
        }
        ProviderKind::TencentCvm => &tencent::Cvm,
        ProviderKind::AlibabaEcs => &super::alibaba::Ecs,
        ProviderKind::BaiduBcc => &super::baidu::Bcc,
    }
}

/// Carries one request to a cloud at `now`. Time never runs back in the world: an earlier `now` counts as the latest.
pub fn handle(world: &mut World, cloud: usize, now: Timestamp, request: &Request) -> Outcome {
    world.advance(now);
    let (kind, skew) = (world.cloud(cloud).kind, world.cloud(cloud).skew);
    let face = face(world, cloud, request);
    let action = face.action(request);
    let count = world.clouds[cloud].calls.entry(action.clone()).or_default();
    *count += 1;
    world.clouds[cloud].legacy_calls += u64::from(is_legacy(world, cloud, request));
    let weather = world.faults.draw(kind, &action, &mut world.rng);
    let request_id = world.request_id();
    let at = world.now().checked_add(skew).unwrap_or(world.now());
    let call = Call { cloud, at, request, request_id: &request_id, action: &action };

    let answer = |world: &mut World| match world.cloud(cloud).denied.contains(&action) {
        true => face.denied(&request_id),
        false => face.answer(world, &call),
    };
    let mut delay = world.settings.latency;
    let mut ahead = SignedDuration::ZERO;
    let reply = match weather {
        Weather::Fair => Some(answer(world)),
        Weather::Throttled => Some(face.throttled(&request_id)),
        Weather::ServerError { applied, gateway } => {
            if applied {
                answer(world);
            }
            Some(if gateway { bad_gateway() } else { face.internal_error(&request_id) })
        }
        Weather::Lost { applied } => {
            if applied {
                answer(world);
            }
            None
        }
        Weather::Late(after) => {
            let lands = later(world.now(), after);
            world.put(lands, Due::Call { cloud, sent: at, request: request.clone() });
            None
        }
        Weather::Delayed(by) => {
            delay = delay.saturating_add(by);
            Some(answer(world))
        }
        Weather::Answer { applied, status, body } => {
            if applied {
                answer(world);
            }
            Some(Response { status, headers: vec![("content-type".into(), "text/html".into())], body })
        }
        Weather::CutOff(length) => {
            let mut reply = answer(world);
            reply.body.truncate(length);
            Some(reply)
        }
        Weather::Skewed(by) => {
            ahead = by;
            Some(answer(world))
        }
    };
    let reply = reply.map(|mut reply| {
        let date = at.checked_add(ahead).unwrap_or(at);
        reply.headers.push(("date".into(), date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        reply
    });
    Outcome { reply, delay }
}

fn bad_gateway() -> Response {
    let body = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n".to_vec();
    Response { status: 502, headers: vec![("content-type".into(), "text/html".into())], body }
}

impl World {
    /// Lets the world's time pass until `now`: everything that falls due before happens, in order, late calls too.
    /// An earlier `now` does nothing.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(entry) = self.due.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let due = entry.remove();
            self.now = self.now.max(at);
            match due {
                Due::Step { cloud, machine, generation, step } => self.step(cloud, machine, generation, step),
                Due::Call { cloud, sent, request } => {
                    let face = face(self, cloud, &request);
                    let (request_id, action) = (self.request_id(), face.action(&request));
                    let call = Call { cloud, at: sent, request: &request, request_id: &request_id, action: &action };
                    face.answer(self, &call);
                }
            }
        }
        self.now = self.now.max(now);
    }
}
