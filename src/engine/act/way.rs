//! The way to machines that are logged in to: their addresses by the cloud's newest word, and the host before them with its key.
//! What is wrong with that key is this machine's own fault: it must never be told as another machine's.

use crate::engine::Tools;
use crate::model::Instance;
use crate::provider::{Blame, Effect, Error, Kind};
use crate::rotation::proof::CUT_OFF;
use crate::rotation::{AddressFrom, SshLogin};
use crate::ssh::{Jump, KeyFileError, Target, read_key_file};

/// The way to the machines of a fleet: how they are logged in to, and the host before them with its key, read from the
/// operator's file once for all that is asked at a time.
pub(in crate::engine) struct Way {
    login: SshLogin,
    jump: Option<Box<Jump>>,
}

impl Way {
    /// Reads the jump host's key, where there is one. Errors are this machine's own: they say nothing of any other.
    pub(in crate::engine) fn open(tools: &Tools, login: &SshLogin) -> Result<Self, KeyFileError> {
        let (login, connect_timeout) = (login.clone(), login.connect_timeout);
        let Some(jump) = &login.jump else { return Ok(Self { login, jump: None }) };
        let target = Target { connect_timeout, ..Target::new(jump.host.clone(), jump.port, jump.user.clone()) };
        let key = read_key_file(&jump.key_file, tools.surroundings.credentials.as_deref())?;
        let jump = Jump { target, key, pinned: Some(jump.host_key.clone()) };
        Ok(Self { jump: Some(Box::new(jump)), login })
    }

    /// Where a machine is logged in to, by the newest look; Err: why the cloud's word does not tell.
    pub(in crate::engine) fn target(&self, seen: &Instance) -> Result<Target, String> {
        let host = address(&self.login.address, seen)?;
        Ok(Target {
            jump: self.jump.clone(),
            connect_timeout: self.login.connect_timeout,
            ..Target::new(host, self.login.port, self.login.user.clone())
        })
    }
}

/// The way to the machines cannot be taken, for a fault on this one: nobody was asked, and the step is tried again.
pub(super) fn cut_off(error: &KeyFileError) -> Error {
    Error {
        kind: Kind::Unavailable,
        effect: Effect::NotDone,
        blame: Blame::Account,
        action: "login".to_string(),
        code: CUT_OFF.to_string(),
        message: error.to_string(),
        request_id: None,
        retry_after: None,
    }
}

/// The address of a machine, by the newest look.
pub(super) fn address(from: &AddressFrom, seen: &Instance) -> Result<String, String> {
    let host = match from {
        AddressFrom::Private => seen.private_address.map(|address| address.to_string()).ok_or("private address"),
        AddressFrom::Public => seen.public_address.map(|address| address.to_string()).ok_or("public address"),
        AddressFrom::Tag(tag) => {
            seen.tags.get(tag).filter(|value| !value.is_empty()).cloned().ok_or("address in its tag")
        }
    };
    host.map_err(|what| format!("the cloud shows no {what}"))
}
