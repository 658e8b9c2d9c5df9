//! The probe that logs in to real machines. It must never keep a connection beyond its call.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::session::{Missed, Patience, Session, Verdict, Wanted, meet};
use super::signer::{SignError, SigningKey};
use super::target::Place;
use super::wire::Stream;
use super::{HostKey, Jump, Login, LoginProbe, Seen, Target, Unreachable};
use crate::clock::Clock;
use crate::model::{Fingerprint, PrivateKey, PublicKey};

/// Logs in over the network, by the given clock's time.
#[derive(Clone)]
pub struct SshProbe {
    clock: Arc<dyn Clock>,
    /// The key that logins under way sign with: a batch loads it once, and it is wiped with the last of them.
    loaded: Arc<Mutex<Option<Loaded>>>,
}

/// A key by its fingerprint, ready to sign for as long as somebody does.
type Loaded = (Fingerprint, Weak<SigningKey>);

/// What comes of meeting a server, some hosts on the way there.
type Meeting<'a> = Pin<Box<dyn Future<Output = Result<Session, Missed>> + Send + 'a>>;

impl SshProbe {
    /// A probe that measures its time-outs by this clock, which must run with the world's time: the servers are real.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, loaded: Arc::default() }
    }

    /// The key, ready to sign: that of a login under way if it is the same.
    fn signing(&self, key: &PrivateKey) -> Result<Arc<SigningKey>, SignError> {
        let fingerprint = key.public().fingerprint();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, signing)) = &*loaded
            && *of == fingerprint
            && let Some(signing) = signing.upgrade()
        {
            return Ok(signing);
        }
        let signing = Arc::new(SigningKey::read(key)?);
        *loaded = Some((fingerprint, Arc::downgrade(&signing)));
        Ok(signing)
    }

    /// Connects and exchanges keys. `what` stands before the host's name where that fails. Boxed, since each jump host
    /// is met in the same way.
    fn meet<'a>(&'a self, what: &'static str, target: &'a Target, wanted: Wanted<'a>) -> Meeting<'a> {
        let patience = Patience { clock: Arc::clone(&self.clock), span: target.connect_timeout };
        Box::pin(async move {
            let unreachable = |why| Missed::Unreachable(format!("{what}{}: {why}", Place(target)));
            let (stream, outer) = match &target.jump {
                None => (connect(target, &patience).await.map_err(unreachable)?, None),
                Some(jump) => {
                    let mut outer = self.pass(jump).await?;
                    let stream = outer.forward(&target.host, target.port).await.map_err(unreachable)?;
                    (stream, Some(Box::new(outer)))
                }
            };
            meet(stream, outer, wanted, patience).await.map_err(|missed| match missed {
                Missed::Unreachable(why) => unreachable(why),
                wrong @ Missed::WrongHost(_) => wrong,
            })
        })
    }

    /// Logs in at a jump host. Whatever goes wrong there is no evidence about the machine behind it.
    async fn pass(&self, jump: &Jump) -> Result<Session, Missed> {
        let unreachable = |why| Missed::Unreachable(format!("jump host {}: {why}", Place(&jump.target)));
        let key = SigningKey::read(&jump.key).map_err(|error| unreachable(error.to_string()))?;
        let met = self.meet("jump host ", &jump.target, Wanted::Session(jump.pinned.as_ref())).await;
        let mut session = met.map_err(|missed| match missed {
            unreachable @ Missed::Unreachable(_) => unreachable,
            Missed::WrongHost(seen) => {
                unreachable(format!("it shows the host key {}, not the pinned one", seen.host_key))
            }
        })?;
        match session.authenticate(&jump.target.user, jump.key.public(), Some(&key)).await {
            Verdict::Taken => Ok(session),
            Verdict::Refused => Err(unreachable(format!("it refuses its key for {}", jump.target.user))),
            Verdict::Neither(why) => Err(unreachable(why)),
        }
    }

    /// Meets the server and asks it about a key, which is proven too if its private half is given.
    async fn ask(
        &self,
        target: &Target,
        pinned: Option<&HostKey>,
        public: &PublicKey,
        key: Option<&SigningKey>,
    ) -> Login {
        let unreachable = |why| Login::Unreachable { why: format!("{}: {why}", Place(target)) };
        let mut session = match self.meet("", target, Wanted::Session(pinned)).await {
            Ok(session) => session,
            Err(Missed::Unreachable(why)) => return Login::Unreachable { why },
            Err(Missed::WrongHost(seen)) => return Login::WrongHost(seen),
        };
        let seen = session.seen();
        let answer = match session.authenticate(&target.user, public, key).await {
            Verdict::Refused => Login::Refused(seen),
            Verdict::Neither(why) => unreachable(why),
            Verdict::Taken if key.is_none() => Login::Accepted(seen),
            Verdict::Taken => session.open().await.map_or_else(unreachable, |()| Login::Accepted(seen)),
        };
        session.close().await;
        answer
    }
}

#[async_trait]
impl LoginProbe for SshProbe {
    async fn host_key(&self, target: &Target, pinned: Option<&HostKey>) -> Result<Seen, Unreachable> {
        match self.meet("", target, Wanted::HostKey(pinned)).await {
            // The exchange ends as if it were the wrong one: nothing more was wanted.
            Err(Missed::WrongHost(seen)) => Ok(seen),
            Err(Missed::Unreachable(why)) => Err(Unreachable { why }),
            Ok(session) => Ok(session.seen()),
        }
    }

    async fn login(&self, target: &Target, pinned: Option<&HostKey>, key: &PrivateKey) -> Login {
        match self.signing(key) {
            Ok(signing) => self.ask(target, pinned, key.public(), Some(&signing)).await,
            Err(error) => Login::Unreachable { why: format!("nothing was asked: {error}") },
        }
    }

    async fn offer(&self, target: &Target, pinned: Option<&HostKey>, key: &PublicKey) -> Login {
        self.ask(target, pinned, key, None).await
    }
}

/// A connection to the target itself.
async fn connect(target: &Target, patience: &Patience) -> Result<Box<dyn Stream>, String> {
    let socket = match patience.lasts(TcpStream::connect((target.host.as_str(), target.port))).await {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => return Err(unconnected(&error)),
        None => return Err(format!("no answer to the connection within {patience}")),
    };
    // Small packets, each waited for. Without it all works, a little slower.
    let _ = socket.set_nodelay(true);
    Ok(Box::new(socket))
}

/// Why there is no connection.
fn unconnected(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused: nothing listens on that port".into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route to host".into(),
        ErrorKind::TimedOut => "no answer to the connection".into(),
        ErrorKind::ConnectionReset => "it reset the connection".into(),
        _ => format!("no connection: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_connection_is_told_in_an_operators_words() {
        let check = |kind: ErrorKind, expect: &str| assert!(unconnected(&kind.into()).starts_with(expect), "{kind}");
        check(ErrorKind::ConnectionRefused, "connection refused");
        check(ErrorKind::HostUnreachable, "no route to host");
        check(ErrorKind::NetworkUnreachable, "no route to host");
        check(ErrorKind::TimedOut, "no answer");
        check(ErrorKind::PermissionDenied, "no connection: permission denied");
    }
}
