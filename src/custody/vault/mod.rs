//! Custody in a KV version 2 engine of HashiCorp Vault or OpenBao: one secret a key, field `private_key`, written by
//! check-and-set only where there is none. It must never take a denial, an outage, a wrong path or a deleted version for a key
//! that is not there, nor let a token or a key into an error.
//!
//! Facts tried on OpenBao 2.7.2 (2026-11): a secret that is not there answers 404 with `"errors":[]`; a missing mount or
//! namespace answers 404 too, but says so in `errors`; a deleted version answers 404 with its metadata; `cas: 0` is refused
//! (400) where any version was ever written until the metadata is deleted.

#[cfg(test)]
pub(super) mod bao;
#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod lossy;
mod session;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

pub use session::{Fetch, Login};

use super::slots::{Remote, Slots};
use super::{CustodyError, MARK_FILE};
use crate::clock::Clock;
use crate::net::{Response, Transport};
use session::Session;
use wire::{Found, Letter};

/// Where the secrets are. Nothing in here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSettings {
    /// Scheme, host and port; plain http only to loopback.
    pub address: String,
    /// The path at which the engine is mounted, without slashes at its ends.
    pub mount: String,
    /// The folder of rekeyd's secrets in it, without slashes at its ends. Nothing else belongs there.
    pub path: String,
    /// The namespace (Vault Enterprise, OpenBao).
    pub namespace: Option<String>,
}

/// A keeper at a Vault.
pub struct Vault {
    settings: VaultSettings,
    session: Arc<Session>,
    /// Renews the token; ends with this keeper.
    _renewal: tokio::task::JoinSet<()>,
}

impl Vault {
    /// Logs in, sees that the engine is one of KV version 2, and keeps the token alive from then on.
    pub async fn custodian(
        settings: VaultSettings,
        login: Fetch,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Remote<Self>, CustodyError> {
        let session = Arc::new(Session::new(&settings, login, transport, clock)?);
        let answer = session.ask(Letter::get(format!("sys/internal/ui/mounts/{}", settings.mount))).await?;
        wire::is_kv2(&answer).map_err(|problem| CustodyError::Failed {
            place: format!("{} {}", settings.address, settings.mount),
            problem,
        })?;
        let mut renewal = tokio::task::JoinSet::new();
        renewal.spawn(session::keep_alive(Arc::clone(&session)));
        Ok(Remote(Self { settings, session, _renewal: renewal }))
    }

    fn data(&self, name: &str) -> String {
        format!("{}/data/{}/{name}", self.settings.mount, self.settings.path)
    }

    fn metadata(&self, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        format!("{}/metadata/{}{slash}{name}", self.settings.mount, self.settings.path)
    }

    /// An answer that is neither yes nor no.
    fn unclear(&self, name: &str, answer: &Response) -> CustodyError {
        CustodyError::Failed { place: self.place(name), problem: wire::complaint(answer) }
    }
}

#[async_trait]
impl Slots for Vault {
    async fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, CustodyError> {
        let answer = self.session.ask(Letter::get(self.data(name))).await?;
        match wire::found(&answer, field(name)) {
            Found::Text(text) => Ok(Some(text)),
            Found::Nothing => Ok(None),
            Found::Spoilt(problem) => Err(CustodyError::Damaged { place: self.place(name), problem }),
            Found::Unclear => Err(self.unclear(name, &answer)),
        }
    }

    async fn create(&self, name: &str, text: &str) -> Result<(), CustodyError> {
        let answer = self.session.ask(Letter::post(self.data(name), wire::create(field(name), text)?)).await?;
        match answer.status {
            200 | 204 => Ok(()),
            _ => Err(self.unclear(name, &answer)),
        }
    }

    async fn erase(&self, name: &str) -> Result<(), CustodyError> {
        // The metadata, and with it every version: a deleted version alone could be brought back.
        let answer = self.session.ask(Letter::delete(self.metadata(name))).await?;
        match answer.status {
            200 | 204 | 404 => Ok(()),
            _ => Err(self.unclear(name, &answer)),
        }
    }

    async fn names(&self) -> Result<Vec<String>, CustodyError> {
        let answer = self.session.ask(Letter::list(self.metadata(""))).await?;
        wire::names(&answer).ok_or_else(|| self.unclear("", &answer))
    }

    fn place(&self, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        format!("{} {}/{}{slash}{name}", self.settings.address, self.settings.mount, self.settings.path)
    }
}

/// What a text of this name is called in its secret.
fn field(name: &str) -> &'static str {
    if name == MARK_FILE { "mark" } else { "private_key" }
}
