//! The way every client takes to its cloud: wait for the rate, sign, send, note the cloud's clock, judge, repeat what
//! may be repeated. It must never sign once and send twice, and never send a change at or after its `before`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::retry::{self, Intent};
use super::throttle::Throttle;
use crate::clock::Clock;
use crate::model::ProviderKind;
use crate::net::{Request, Response, Transport, TransportError};
use crate::provider::error::{Blame, Effect, Error, Kind};
use crate::provider::grant::may_be_of_credentials;
use crate::provider::witness::{Heard, Witness};
use crate::provider::{Credentials, Keyring};

/// One account in one region, as seen from HTTP.
pub struct Door {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    throttle: Throttle,
    keyring: Keyring,
    chance: Mutex<StdRng>,
    difference: Mutex<Option<SignedDuration>>,
    witness: Option<(ProviderKind, Arc<dyn Witness>)>,
    expired: &'static [&'static str],
}

/// The code of an error that says: there are no credentials to sign with now.
pub const NO_CREDENTIALS: &str = "no_credentials";

/// So often a denied call is sent again with newer credentials than those that were denied.
const RENEWALS_MAX: u32 = 3;

/// Makes a signed request from the time of this attempt, a nonce that no other attempt has, and what is valid then.
pub type Sign<'a> = &'a (dyn Fn(Timestamp, u128, &Credentials) -> Request + Send + Sync);

/// Judges an answer, whatever its status. Its errors are redacted and given the cloud's `retry_after` by the door.
pub type Parse<'a, T> = &'a (dyn Fn(&Response) -> Result<T, Error> + Send + Sync);

impl Door {
    /// A door with these request rates (actions a second; see [`Throttle::new`]). `seed` feeds nonces and jitter.
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        rates: &BTreeMap<String, u32>,
        keyring: Keyring,
        seed: u64,
    ) -> Self {
        Self {
            throttle: Throttle::new(clock.clone(), rates),
            transport,
            clock,
            keyring,
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            difference: Mutex::new(None),
            witness: None,
            expired: &[],
        }
    }

    /// The same, repeating once a call that is refused with one of these codes: its signature had grown old on the way.
    /// Such a refusal must be known not done.
    pub fn once_more_on(self, expired: &'static [&'static str]) -> Self {
        Self { expired, ..self }
    }

    /// The same, telling this witness of each attempt, as one at this cloud.
    pub fn heard_by(self, provider: ProviderKind, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some((provider, witness)), ..self }
    }

    /// Calls the cloud: reads are repeated while that may help, changes only when known not done, for 30 s at most
    /// ([`retry::REPEAT_MAX`]) and never at or after `before`. Every attempt is signed anew, so a signature that
    /// [had expired](Self::once_more_on) is worth one repetition more. So is a denial, where there are other credentials by
    /// then: they may have been replaced while the call was on its way, or been read while half of them were new.
    ///
    /// A change whose time is up before it could be sent is [`Kind::Throttled`], [`Effect::NotDone`]. The check is
    /// made right before the request is handed to the transport, which may still need to connect (5 s at most).
    pub async fn call<T>(&self, action: &str, intent: Intent, sign: Sign<'_>, parse: Parse<'_, T>) -> Result<T, Error> {
        let deadline = intent.deadline(self.clock.now());
        let mut last: Option<Error> = None;
        let (mut expired, mut renewals) = (false, 0);
        for attempt in 0u32.. {
            if let Err(turn) = self.throttle.turn(action, deadline).await {
                self.tell(action, Err(Kind::Throttled), None);
                let wait = turn.duration_since(deadline);
                return Err(last.unwrap_or_else(|| Error {
                    code: "rate".to_string(),
                    message: format!("its turn under our own request rate comes {wait:#} after its deadline"),
                    ..too_late(action)
                }));
            }
            let credentials = match self.keyring.credentials().await {
                Ok(credentials) => credentials,
                Err(problem) => return Err(no_credentials(action, problem)),
            };
            let now = self.clock.now();
            if matches!(intent, Intent::Change { before } if now >= before) {
                return Err(last.unwrap_or_else(|| too_late(action)));
            }
            let (nonce, chance) = self.draw();
            let answer = self.transport.send(&sign(now, nonce, &credentials)).await;
            let outcome = match answer {
                Ok(response) => {
                    self.note_date(&response);
                    parse(&response).map_err(|error| {
                        let asked = error.retry_after.or_else(|| retry::retry_after(&response));
                        Error { retry_after: asked, ..error }
                    })
                }
                Err(error) => Err(unanswered(action, &error)),
            };
            self.tell(action, outcome.as_ref().map(drop).map_err(|error| error.kind), Some(now));
            let error = match outcome {
                Ok(value) => return Ok(value),
                Err(error) => self.clean(error),
            };
            let expires = error.effect == Effect::NotDone && self.expired.contains(&error.code.as_str());
            let renews = error.kind == Kind::Denied
                && error.effect == Effect::NotDone
                && renewals < RENEWALS_MAX
                && self.keyring.may_change();
            renewals += u32::from(renews);
            let repeats = match expires {
                true => !std::mem::replace(&mut expired, true),
                false => renews || intent.may_repeat(&error, attempt),
            };
            let again = self.clock.now().saturating_add(retry::pause(attempt, chance, error.retry_after));
            match again {
                Ok(again) if repeats && again < deadline => {
                    self.clock.sleep_until(again).await;
                    if renews && !expires && !self.keyring.has_others(&credentials).await {
                        return Err(self.lacking(error, &credentials));
                    }
                    last = Some(error);
                }
                _ => return Err(self.lacking(error, &credentials)),
            }
        }
        Err(last.unwrap_or_else(|| too_late(action)))
    }

    /// What a call came to whose credentials were denied while others cannot be had: it has none, and waits for them. A
    /// denial of a permission, or of the time, is what it is.
    fn lacking(&self, error: Error, credentials: &Credentials) -> Error {
        let of_credentials =
            error.kind == Kind::Denied && error.effect == Effect::NotDone && may_be_of_credentials(&error.code);
        match of_credentials.then(|| self.keyring.denied(credentials, &error.code)).flatten() {
            Some(problem) => no_credentials(&error.action, problem),
            None => error,
        }
    }

    /// Our clock less the cloud's, by the `Date` header of the newest answer (whole seconds there; the answer's way
    /// to us is not taken off). `None` before the first.
    pub fn clock_difference(&self) -> Option<SignedDuration> {
        *self.difference.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error without secrets in its texts. The door does it for what [`call`](Self::call) answers; errors that
    /// ride in an answer that is well (single instances refused) need it too.
    pub fn clean(&self, error: Error) -> Error {
        let redactor = self.keyring.redactor();
        Error {
            code: redactor.word(&error.code),
            message: redactor.message(&error.message),
            request_id: error.request_id.map(|id| redactor.word(&id)),
            ..error
        }
    }

    /// Tells the witness, if there is one. `sent`: when the attempt was sent, if it was.
    fn tell(&self, action: &str, outcome: Result<(), Kind>, sent: Option<Timestamp>) {
        let Some((provider, witness)) = &self.witness else { return };
        // A clock that was set back meanwhile makes no negative time.
        let took = sent.and_then(|at| self.clock.now().duration_since(at).try_into().ok()).unwrap_or_default();
        let clock_difference = self.clock_difference();
        witness.heard(&Heard { provider: *provider, action, outcome, sent: sent.is_some(), took, clock_difference });
    }

    fn draw(&self) -> (u128, f64) {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        (chance.random(), chance.random())
    }

    fn note_date(&self, response: &Response) {
        if let Some(date) = retry::date(response) {
            let difference = self.clock.now().duration_since(date);
            *self.difference.lock().unwrap_or_else(PoisonError::into_inner) = Some(difference);
        }
    }
}

/// A call whose time was up before it was sent.
fn too_late(action: &str) -> Error {
    Error {
        kind: Kind::Throttled,
        effect: Effect::NotDone,
        blame: Blame::Request,
        action: action.to_string(),
        code: "too_late".to_string(),
        message: "not sent: its time was up".to_string(),
        request_id: None,
        retry_after: None,
    }
}

/// A call that cannot be signed: nothing was sent, and it is the account's matter.
fn no_credentials(action: &str, problem: String) -> Error {
    let (kind, blame) = (Kind::Unavailable, Blame::Account);
    Error { kind, blame, code: NO_CREDENTIALS.to_string(), message: problem, ..too_late(action) }
}

/// What the lack of an answer means.
fn unanswered(action: &str, error: &TransportError) -> Error {
    let (kind, effect, code) = match error {
        TransportError::NotSent(_) => (Kind::Unavailable, Effect::NotDone, "not_sent"),
        TransportError::NoAnswer(_) => (Kind::Unavailable, Effect::Unknown, "no_answer"),
        TransportError::TooLarge => (Kind::Protocol, Effect::Unknown, "too_large"),
    };
    Error { kind, effect, code: code.to_string(), message: error.to_string(), ..too_late(action) }
}

/// An answer that cannot be what the cloud means: HTML, cut-off or mistyped JSON, a redirect. Nobody knows whether the
/// call was done.
pub fn unreadable(action: &str, problem: impl std::fmt::Display) -> Error {
    Error {
        kind: Kind::Protocol,
        effect: Effect::Unknown,
        code: "unreadable".to_string(),
        message: problem.to_string(),
        ..too_late(action)
    }
}

/// A request that is refused here, before anything is sent.
pub fn refused_here(action: &str, problem: impl std::fmt::Display) -> Error {
    Error { kind: Kind::Invalid, code: "refused_here".to_string(), message: problem.to_string(), ..too_late(action) }
}

#[cfg(test)]
#[path = "door_tests.rs"]
pub(crate) mod tests;
