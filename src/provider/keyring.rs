//! An account's credentials as they are at each signing: given once, read anew from where somebody rewrites them, or
//! fetched from the machine's own role before they expire. One fetch at a time, and nobody waits for it who has valid ones.
//! It must never print a secret, nor hand out what has expired.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::Credentials;
use super::http::redact::Redactor;
use super::role::{Fetched, Role};
use crate::clock::Clock;
use crate::net::Transport;

/// No request is signed with what expires within this time: it may be that long on its way.
const VALID_FOR: Duration = Duration::from_secs(10);
/// A role that still gives the older credentials, or does not answer, is asked again after this time …
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// … but after this time where there are none that are valid.
const ASK_AGAIN_AT_ONCE: Duration = Duration::from_secs(3);
/// After a denial a role is asked for others at most so often: most denials are of permissions.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

/// Reads credentials, or says why that cannot be done; the reason holds no secret.
pub type ReadCredentials = dyn Fn() -> Result<Credentials, String> + Send + Sync;

/// The credentials of one account, shared by all who sign for it.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    source: Source,
    state: Mutex<State>,
    /// Who asks a role has it.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A renewal behind everybody's back; it ends with the keyring.
    renewal: Mutex<JoinSet<()>>,
}

enum Source {
    Fixed,
    Read { name: String, read: Arc<ReadCredentials> },
    Role { role: Role, transport: Arc<dyn Transport>, clock: Arc<dyn Clock> },
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Those before: requests that were signed with them may still be answered.
    before: Option<Arc<Credentials>>,
    /// Why the newest reading or fetch failed; `None` after one that did not.
    problem: Option<String>,
    /// With this code the cloud denied those that are held, while there were no others to be had.
    denied: Option<String>,
    /// When a role was asked last.
    asked: Option<Timestamp>,
}

#[derive(Clone)]
struct Held {
    credentials: Arc<Credentials>,
    expires: Option<Timestamp>,
}

impl State {
    /// Takes these as the newest.
    fn take(&mut self, credentials: Credentials, expires: Option<Timestamp>) -> Arc<Credentials> {
        (self.problem, self.denied) = (None, None);
        if let Some(held) = self.held.as_mut().filter(|held| held.credentials.is_same(&credentials)) {
            held.expires = expires;
            return Arc::clone(&held.credentials);
        }
        let credentials = Arc::new(credentials);
        let held = Held { credentials: Arc::clone(&credentials), expires };
        self.before = self.held.replace(held).map(|held| held.credentials);
        credentials
    }

    /// Those that a request may be signed with now.
    fn valid(&self, now: Timestamp) -> Option<&Held> {
        let valid = |held: &&Held| held.expires.is_none_or(|expires| after(now, VALID_FOR) < expires);
        self.held.as_ref().filter(|_| self.denied.is_none()).filter(valid)
    }

    /// Why there are none, in full.
    fn lack(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(match &self.denied {
            Some(code) => format!("{problem}; those from before are denied by the cloud ({code})"),
            None => problem.clone(),
        })
    }

    /// Whether a role was asked less than so long ago. A clock that was set back does not keep it from being asked.
    fn was_asked(&self, now: Timestamp, within: Duration) -> bool {
        self.asked.is_some_and(|asked| asked <= now && now < after(asked, within))
    }
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    at.saturating_add(time).unwrap_or(Timestamp::MAX)
}

impl From<Credentials> for Keyring {
    /// These, for ever.
    fn from(credentials: Credentials) -> Self {
        let state =
            State { held: Some(Held { credentials: Arc::new(credentials), expires: None }), ..State::default() };
        Self::new(Source::Fixed, state)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0.source {
            Source::Fixed => "fixed",
            Source::Read { .. } => "read anew",
            Source::Role { .. } => "role",
        };
        write!(f, "Keyring({kind})")
    }
}

impl Keyring {
    fn new(source: Source, state: State) -> Self {
        let state = Mutex::new(state);
        Self(Arc::new(Inner { source, state, turn: Arc::default(), renewal: Mutex::default() }))
    }

    /// Those that `read` gives, asked at each signing: who rewrites them needs to tell nobody. A reading that fails
    /// after one that did not (a file in the midst of being replaced) leaves the older ones in force, until the cloud
    /// [denies](Self::denied) them. `name` tells one source from another; it is compared and never shown.
    pub fn read(name: String, read: Arc<ReadCredentials>) -> Self {
        Self::new(Source::Read { name, read }, State::default())
    }

    /// Those of the role that this machine has, fetched when first needed and again before they expire. `transport` has
    /// little patience ([`crate::net::Network::beside`]): whoever has none that are valid waits for it.
    pub fn role(role: Role, transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self::new(Source::Role { role, transport, clock }, State::default())
    }

    /// Whether both get theirs from the same place; of given ones, whether they are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0.source, &other.0.source) {
            (Source::Fixed, Source::Fixed) => match (self.at_hand(), other.at_hand()) {
                (Some(one), Some(other)) => one.is_same(&other),
                _ => false,
            },
            (Source::Read { name, .. }, Source::Read { name: other, .. }) => name == other,
            (Source::Role { role, .. }, Source::Role { role: other, .. }) => role == other,
            _ => false,
        }
    }

    /// The newest that were given, read or fetched.
    pub fn at_hand(&self) -> Option<Arc<Credentials>> {
        self.state().held.as_ref().map(|held| Arc::clone(&held.credentials))
    }

    /// Those to sign with now. The error says why there are none, without any secret.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, String> {
        match &self.0.source {
            Source::Fixed => self.at_hand().ok_or_else(|| "there are none".to_string()),
            Source::Read { read, .. } => self.reread(read.as_ref()),
            Source::Role { role, transport, clock } => self.of_role(role, transport, clock).await,
        }
    }

    /// Whether there is something to sign with, as far as can be told without the network: else whoever needs them
    /// waits. A role that did not answer is asked again behind the caller's back.
    pub fn ready(&self) -> Result<(), String> {
        match &self.0.source {
            Source::Fixed => Ok(()),
            Source::Read { read, .. } => self.reread(read.as_ref()).map(drop),
            Source::Role { role, transport, clock } => {
                let problem = match &*self.state() {
                    state if state.valid(clock.now()).is_some() => return Ok(()),
                    // Not asked yet: the first call does.
                    state => match state.lack() {
                        None => return Ok(()),
                        Some(problem) => problem,
                    },
                };
                self.renew(role, transport, clock);
                Err(problem)
            }
        }
    }

    /// Whether there may ever be others.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self.0.source, Source::Fixed)
    }

    /// Whether there are others now than these, which the cloud denied. A role is asked for that, once a minute at most.
    pub(super) async fn has_others(&self, denied: &Credentials) -> bool {
        if let Source::Role { role, transport, clock } = &self.0.source {
            let asks = || {
                let state = self.state();
                let is_newest = state.held.as_ref().is_some_and(|held| held.credentials.is_same(denied));
                is_newest && !state.was_asked(clock.now(), AFTER_DENIAL)
            };
            if asks() {
                let _turn = self.0.turn.lock().await;
                // Of all who were denied at once the first one asks for all.
                if asks() {
                    // What comes of it is seen below; that the role does not answer makes no others.
                    let _ = self.note(role.fetch(transport.as_ref()).await, clock.now());
                }
            }
        }
        self.credentials().await.is_ok_and(|newest| !newest.is_same(denied))
    }

    /// These were denied by the cloud, as credentials, with this code. Where there are no others because they cannot be had
    /// (unreadable, a role that does not answer), says so: from then on there are none, until some are had. `None`: those
    /// that there are were denied.
    pub(super) fn denied(&self, credentials: &Credentials, code: &str) -> Option<String> {
        let mut state = self.state();
        let are_held = state.held.as_ref().is_some_and(|held| held.credentials.is_same(credentials));
        if !are_held || state.problem.is_none() {
            return None;
        }
        if state.denied.is_none() {
            tracing::warn!(problem = state.problem, code, "the cloud denies credentials, and no others can be had");
        }
        state.denied = Some(code.to_string());
        state.lack()
    }

    /// A redactor that knows these credentials, and those before.
    pub fn redactor(&self) -> Redactor {
        let state = self.state();
        let held = state.held.as_ref().map(|held| &held.credentials);
        Redactor::new(held.into_iter().chain(&state.before).flat_map(|credentials| credentials.secrets()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reread(&self, read: &ReadCredentials) -> Result<Arc<Credentials>, String> {
        let read = read().and_then(|read| read.check().map(|()| read));
        let mut state = self.state();
        match read {
            Ok(credentials) => {
                let is_new = state.held.as_ref().is_some_and(|held| !held.credentials.is_same(&credentials));
                if is_new {
                    tracing::info!("an account's credentials were replaced where they are read from");
                }
                Ok(state.take(credentials, None))
            }
            Err(problem) => {
                let Some(held) = state.held.clone() else { return Err(problem) };
                if state.problem.is_none() {
                    tracing::warn!(problem, "credentials cannot be read again: those read before stay in force");
                }
                state.problem = Some(problem);
                match state.lack().filter(|_| state.denied.is_some()) {
                    Some(lack) => Err(lack),
                    None => Ok(held.credentials),
                }
            }
        }
    }

    async fn of_role(
        &self,
        role: &Role,
        transport: &Arc<dyn Transport>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<Credentials>, String> {
        if let Some(answer) = self.at_once(clock.now()) {
            if answer.is_ok() {
                self.renew(role, transport, clock);
            }
            return answer;
        }
        let _turn = self.0.turn.lock().await;
        // Somebody may have asked meanwhile.
        if let Some(answer) = self.at_once(clock.now()) {
            return answer;
        }
        self.note(role.fetch(transport.as_ref()).await, clock.now())
    }

    /// What can be answered without the role.
    fn at_once(&self, now: Timestamp) -> Option<Result<Arc<Credentials>, String>> {
        let state = self.state();
        match state.valid(now) {
            Some(held) => Some(Ok(Arc::clone(&held.credentials))),
            None => state.lack().filter(|_| state.was_asked(now, ASK_AGAIN_AT_ONCE)).map(Err),
        }
    }

    /// Whether a role should be asked now, though nobody waits for it.
    fn is_due(&self, role: &Role, now: Timestamp) -> bool {
        let state = self.state();
        match state.valid(now) {
            Some(held) => {
                let is_old = held.expires.is_some_and(|expires| after(now, role.renewed_before()) >= expires);
                is_old && !state.was_asked(now, ASK_AGAIN)
            }
            None => !state.was_asked(now, ASK_AGAIN_AT_ONCE),
        }
    }

    /// Asks the role behind the caller's back if that is due, unless somebody asks already.
    fn renew(&self, role: &Role, transport: &Arc<dyn Transport>, clock: &Arc<dyn Clock>) {
        let Ok(turn) = Arc::clone(&self.0.turn).try_lock_owned() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_due(role, clock.now()) {
            return;
        }
        let (role, transport, clock) = (role.clone(), Arc::clone(transport), Arc::clone(clock));
        // Held weakly: it must not keep alive what it serves.
        let keyring = Arc::downgrade(&self.0);
        let renewal = async move {
            let _turn = turn;
            let fetched = role.fetch(transport.as_ref()).await;
            if let Some(keyring) = keyring.upgrade() {
                // Whoever needs them sees what came of it.
                let _ = Self(keyring).note(fetched, clock.now());
            }
        };
        let mut renewals = self.0.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        while renewals.try_join_next().is_some() {}
        renewals.spawn_on(renewal, &runtime);
    }

    /// Keeps what a role gave, and answers what to sign with. Whoever calls this has the turn.
    fn note(&self, fetched: Result<Fetched, String>, now: Timestamp) -> Result<Arc<Credentials>, String> {
        let mut state = self.state();
        state.asked = Some(now);
        let problem = match fetched {
            Ok(fetched) if after(now, VALID_FOR) < fetched.expires => {
                return Ok(state.take(fetched.credentials, Some(fetched.expires)));
            }
            Ok(fetched) => {
                format!(
                    "the role's credentials expired at {} and it gave no others (our clock says {now})",
                    fetched.expires
                )
            }
            Err(problem) => problem,
        };
        let valid = state.valid(now).map(|held| (Arc::clone(&held.credentials), held.expires));
        state.problem = Some(problem.clone());
        match valid {
            Some((held, expires)) => {
                let expires = expires.map(|at| at.to_string());
                tracing::warn!(
                    problem,
                    expires,
                    "a role's credentials cannot be renewed: the older ones are valid still"
                );
                Ok(held)
            }
            None => Err(state.lack().unwrap_or(problem)),
        }
    }
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
