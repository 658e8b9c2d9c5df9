//! Who we are to Vault: a token, or an AppRole that gets one. It is renewed before it expires, whether anybody asks for a
//! key meanwhile or not, and fetched or logged in for anew where Vault denies it. It must never print a token, and never
//! repeat a request but one that was denied, which is known not done.

use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use zeroize::{Zeroize, Zeroizing};

use super::super::CustodyError;
use super::VaultSettings;
use super::wire::{self, Lent, Letter};
use crate::clock::Clock;
use crate::model::{Duration, Timestamp};
use crate::net::{Origin, Response, Transport};

/// As whom to come to Vault.
pub enum Login {
    /// With a token; an agent may write a new one where it was read.
    Token(SecretString),
    /// By AppRole, mounted at `auth/approle`.
    AppRole {
        /// Which role.
        role_id: SecretString,
        /// Its secret.
        secret_id: SecretString,
    },
}

/// Reads the login's secrets where they are kept, each time anew. Its error holds none of them.
pub type Fetch = Arc<dyn Fn() -> Result<Login, String> + Send + Sync>;

/// A token that was denied this soon after it was lent is good: its policy does not allow what was asked.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// Longer than this is for ever.
const FOR_EVER: u64 = 100 * 365 * 86_400;
/// The longest between two tries to renew.
const RETRY_MAX: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The token in use.
#[derive(Clone)]
struct Lease {
    token: SecretString,
    since: Timestamp,
    /// How long it was lent for; `None`: for ever, or nobody knows.
    time: Option<Duration>,
    renewable: bool,
    /// What the first loan of this token was: renewals shrink as it nears its last day.
    first: Option<Duration>,
}

impl Lease {
    fn of(lent: &Lent, token: SecretString, since: Timestamp) -> Self {
        let time = (1..FOR_EVER).contains(&lent.seconds).then(|| Duration::from_secs(lent.seconds));
        Self { token, since, time, renewable: lent.renewable, first: time }
    }

    /// When it is to be renewed: two thirds on its way, so that there is time to try again.
    fn due(&self) -> Option<Timestamp> {
        self.since.checked_add(self.time? * 2 / 3).ok()
    }

    /// How long to wait after a try that failed: a quarter of what is left, and long once nothing is.
    fn pause(&self, now: Timestamp) -> Duration {
        let end = self.time.and_then(|time| self.since.checked_add(time).ok()).unwrap_or(now);
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        if left.is_zero() { RETRY_MAX } else { (left / 4).clamp(RETRY_MIN, RETRY_MAX) }
    }
}

/// The way to one Vault.
pub(super) struct Session {
    origin: Origin,
    namespace: Option<String>,
    fetch: Fetch,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    lease: Mutex<Option<Lease>>,
    /// One login at a time.
    login: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Session {
    pub(super) fn new(
        settings: &VaultSettings,
        fetch: Fetch,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CustodyError> {
        let origin = Origin::parse(&settings.address)
            .map_err(|error| CustodyError::Failed { place: "custody.vault".to_string(), problem: error.to_string() })?;
        let namespace = settings.namespace.clone();
        let (login, changed) = (tokio::sync::Mutex::new(()), Notify::new());
        Ok(Self { origin, namespace, fetch, transport, clock, lease: Mutex::default(), login, changed })
    }

    /// Sends a letter with our token. One that is denied is sent once more, if there is another token by then.
    pub(super) async fn ask(&self, letter: Letter) -> Result<Zeroizing<Response>, CustodyError> {
        let lease = match self.lease() {
            Some(lease) => lease,
            None => self.log_in(None).await?,
        };
        let answer = self.send(&letter, Some(&lease.token)).await?;
        if answer.status != 403 {
            return Ok(answer);
        }
        let renewed = self.log_in(Some(&lease)).await?;
        match renewed.token.expose_secret() == lease.token.expose_secret() {
            true => Ok(answer),
            false => self.send(&letter, Some(&renewed.token)).await,
        }
    }

    fn lease(&self) -> Option<Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, lease: Lease) -> Lease {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
        self.changed.notify_one();
        lease
    }

    /// A lease other than the one that was denied, if there is any; else that one.
    async fn log_in(&self, denied: Option<&Lease>) -> Result<Lease, CustodyError> {
        let _one = self.login.lock().await;
        let same = |lease: &Lease| denied.is_some_and(|old| old.token.expose_secret() == lease.token.expose_secret());
        if let Some(lease) = self.lease().filter(|lease| !same(lease)) {
            return Ok(lease);
        }
        let login = (self.fetch)().map_err(|why| self.failed("login", why))?;
        match (login, denied) {
            (Login::Token(token), Some(old)) if token.expose_secret() == old.token.expose_secret() => Ok(old.clone()),
            (Login::Token(token), _) => self.look_up(token).await,
            (Login::AppRole { .. }, Some(old)) if self.clock.now().duration_since(old.since) < signed(FRESH) => {
                Ok(old.clone())
            }
            (Login::AppRole { role_id, secret_id }, _) => self.approle(&role_id, &secret_id).await,
        }
    }

    /// How long a token that was given to us lives.
    async fn look_up(&self, token: SecretString) -> Result<Lease, CustodyError> {
        let since = self.clock.now();
        let answer = self.send(&Letter::get("auth/token/lookup-self".to_string()), Some(&token)).await?;
        let unknown = Lent { token: None, seconds: 0, renewable: false };
        let lent = match (wire::looked_up(&answer), answer.status) {
            (Some(lent), _) => lent,
            // Its policy may not allow this question: what it was given for is asked with it all the same.
            (None, 403) => unknown,
            (None, _) => return Err(self.failed("auth/token/lookup-self", wire::complaint(&answer))),
        };
        Ok(self.take(Lease::of(&lent, token, since)))
    }

    async fn approle(&self, role_id: &SecretString, secret_id: &SecretString) -> Result<Lease, CustodyError> {
        let since = self.clock.now();
        let body = wire::approle(role_id.expose_secret(), secret_id.expose_secret())?;
        let answer = self.send(&Letter::post("auth/approle/login".to_string(), body), None).await?;
        match wire::lent(&answer) {
            Some(Lent { token: Some(token), seconds, renewable }) => {
                let token = SecretString::from(token.as_str());
                Ok(self.take(Lease::of(&Lent { token: None, seconds, renewable }, token, since)))
            }
            _ => Err(self.failed("auth/approle/login", wire::complaint(&answer))),
        }
    }

    /// Makes the token live longer, or gets another one. `Ok` may leave it as it is, where nothing can be done.
    async fn renew(&self, lease: &Lease) -> Result<(), CustodyError> {
        if lease.renewable {
            let since = self.clock.now();
            let letter = Letter::post("auth/token/renew-self".to_string(), Zeroizing::new(b"{}".to_vec()));
            let answer = self.send(&letter, Some(&lease.token)).await?;
            let lent = wire::lent(&answer);
            if let Some(lent) = &lent {
                let renewed = Lease { first: lease.first, ..Lease::of(lent, lease.token.clone(), since) };
                // Near its last day each renewal is shorter than the one before: then another token is better.
                let whole = renewed.time.zip(lease.first).is_none_or(|(now, first)| now >= first / 2);
                self.take(renewed);
                if whole {
                    return Ok(());
                }
            } else if answer.status != 400 && answer.status != 403 {
                return Err(self.failed("auth/token/renew-self", wire::complaint(&answer)));
            }
        }
        let _one = self.login.lock().await;
        match (self.fetch)().map_err(|why| self.failed("login", why))? {
            Login::AppRole { role_id, secret_id } => self.approle(&role_id, &secret_id).await.map(drop),
            Login::Token(token) if token.expose_secret() == lease.token.expose_secret() => {
                let why = "the token expires and cannot be renewed further: put a new one where it is read from";
                Err(self.failed("token", why.to_string()))
            }
            Login::Token(token) => self.look_up(token).await.map(drop),
        }
    }

    async fn send(&self, letter: &Letter, token: Option<&SecretString>) -> Result<Zeroizing<Response>, CustodyError> {
        let token = token.map(|token| token.expose_secret());
        let (origin, host) = (self.origin.to_string(), self.origin.authority());
        let request = letter.request(&origin, host, self.namespace.as_deref(), token);
        let answer = self.transport.send(&request).await.map(Zeroizing::new);
        let mut answer = answer.map_err(|error| self.failed(&letter.path, error.to_string()))?;
        // Who answers for Vault may repeat what it was sent: an error is never made of that.
        let repeats = |token: &str| answer.body.windows(token.len().max(1)).any(|part| part == token.as_bytes());
        if answer.status >= 400 && token.is_some_and(repeats) {
            answer.body.zeroize();
        }
        Ok(answer)
    }

    fn failed(&self, what: &str, problem: String) -> CustodyError {
        CustodyError::Failed { place: format!("{} {what}", self.origin), problem }
    }
}

fn signed(time: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX)
}

/// Renews the token of a session for as long as it runs.
pub(super) async fn keep_alive(session: Arc<Session>) {
    let mut pause = None;
    loop {
        let lease = session.lease();
        let due = lease.as_ref().and_then(Lease::due);
        let until = pause.take().or(due).unwrap_or(Timestamp::MAX);
        tokio::select! {
            () = session.clock.sleep_until(until) => {}
            () = session.changed.notified() => continue,
        }
        let Some(lease) = lease else { continue };
        if let Err(error) = session.renew(&lease).await {
            let now = session.clock.now();
            let wait = lease.pause(now);
            tracing::warn!(%error, "custody's token could not be renewed; again in {} s", wait.as_secs());
            pause = now.checked_add(wait).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_two_thirds_and_tried_again_in_quarters_of_what_is_left() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let lease =
            |seconds: u64| Lease::of(&Lent { token: None, seconds, renewable: true }, SecretString::from("t"), at(0));
        let check = |seconds: u64, due: Option<i64>| assert_eq!(lease(seconds).due(), due.map(at));
        check(3600, Some(2400));
        check(3, Some(2));
        check(0, None);
        check(u64::MAX, None);
        let pause = |now: i64, expect: u64| assert_eq!(lease(3600).pause(at(now)), Duration::from_secs(expect));
        pause(2400, 30);
        pause(3560, 10);
        pause(3599, 1);
        pause(9999, 30);
    }
}
