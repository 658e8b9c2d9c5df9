//! SSH itself: making key pairs, and the proof by login. It must never write a private half anywhere; keeping it is
//! custody's.

mod key_file;
mod keygen;
mod login;
mod memory;
mod pool;
mod probe;
mod session;
mod signer;
mod target;
mod wire;

pub use crate::model::{HostKey, Login, Seen};
pub use key_file::{KeyFileError, credential_file, credential_name, read_key_file};
pub use keygen::{KeyMaker, KeygenError, RsaKeyMaker, generate};
pub use login::SshProbe;
pub use memory::{Guest, Memory};
pub use pool::{KeyPool, PooledKeyMaker};
pub use probe::{LoginProbe, Unreachable};
pub use target::{Jump, Target};
