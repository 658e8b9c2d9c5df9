//! The words of rekeyd: identifiers, keys, durations, what clouds show and say, as plain values. No I/O, no async, no
//! clock in here.

mod amount;
mod cloud;
pub mod error;
mod host;
mod ids;
mod key;

pub use amount::{Amount, parse_duration, show_duration};
pub use cloud::{Disruption, Hazard, Image, Instance, KeyPair, Limits, Operation, Power, Select};
pub use host::{HostKey, Login, Pin, Seen};
pub use ids::{
    AccountName, FleetName, InstanceId, JournalId, KeyPairId, KeyPairName, Mark, ProviderKind, Region, RequestId,
};
pub use key::{Fingerprint, KeyError, PrivateKey, PublicKey};

pub use jiff::Timestamp;
pub use std::time::Duration;
