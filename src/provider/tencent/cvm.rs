//! What is CVM's own: limits, rates, bodies. API 2017-03-12. A table; it must never call anything.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Face, Mac};
use crate::model::{KeyPairName, ProviderKind, PublicKey};
use crate::provider::{Disruption, Limits};

/// CVM.
pub(super) static FACE: Face = face(stop, None);
/// The same by its legacy endpoint.
pub(super) static LEGACY: Face = face(legacy_stop, Some(Mac::Sha256));
/// The same, signed by HMAC-SHA1.
pub(super) static LEGACY_SHA1: Face = face(legacy_stop, Some(Mac::Sha1));

const fn face(stop: fn(bool) -> Value, legacy: Option<Mac>) -> Face {
    let limits = &LIMITS;
    Face { service: "cvm", version: "2017-03-12", limits, import, stop, hazards: true, foretells: false, legacy }
}

/// FACTS 2.2 (PY-CVM 3.1.178; rates: DOC 213/568, 213/15700, 213/15703, 213/33229, 213/33232).
pub(super) static LIMITS: Limits = Limits {
    provider: ProviderKind::TencentCvm,
    bind_max: 100,
    power_max: 100,
    page_max: 100,
    delete_max: 100,
    key_name_max: 25,
    // The pages say "OpenSSH RSA" and no size; these are the sizes that all four clouds' tools make.
    key_bits: &[2048, 3072, 4096],
    disruption: Disruption::NeedsStopped,
    whole_batch_fails: true,
    key_pairs_max: None,
    // DisassociateInstancesKeyPairs: unconfirmed.
    requests_per_second: &[
        ("DescribeInstances", 40),
        ("ImportKeyPair", 10),
        ("DescribeKeyPairs", 10),
        ("AssociateInstancesKeyPairs", 10),
        ("DisassociateInstancesKeyPairs", 10),
        ("DeleteKeyPairs", 10),
        ("StartInstances", 10),
        ("RebootInstances", 10),
        ("StopInstances", 10),
    ],
    // A soft stop, the bind, the start: our judgement, no page says.
    downtime: Duration::from_secs(180),
};

/// ProjectId is required; 0 is the default project.
fn import(name: &KeyPairName, key: &PublicKey) -> Value {
    json!({"KeyName": name.as_str(), "ProjectId": 0, "PublicKey": key.to_openssh()})
}

/// The mode is always given: stopped without charging an instance may lose its address and its place, and can take no
/// key pair. `force` is SOFT_FIRST: the guest is asked before its power is cut.
fn stop(force: bool) -> Value {
    json!({"StopType": if force { "SOFT_FIRST" } else { "SOFT" }, "StoppedMode": "KEEP_CHARGING"})
}

/// The legacy page of StopInstances knows ForceStop (after a soft stop that failed) and no StopType, and the two exclude
/// each other (FACTS 6, InvalidParameterCombination). It does not know StoppedMode either: sent all the same, since a
/// refusal harms nobody and a stop without charging does.
fn legacy_stop(force: bool) -> Value {
    json!({"ForceStop": force, "StoppedMode": "KEEP_CHARGING"})
}
