//! SSH itself: making key pairs. It must never write a private half anywhere; keeping it is custody's.

mod keygen;
mod pool;

pub use keygen::{KeyMaker, KeygenError, RsaKeyMaker, generate};
pub use pool::{KeyPool, PooledKeyMaker};
