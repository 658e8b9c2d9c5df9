//! What is Lighthouse's own: limits, rates, bodies. API 2020-03-24. A table; it must never call anything.

use std::time::Duration;

use serde_json::{Value, json};

use super::Face;
use crate::model::{KeyPairName, ProviderKind, PublicKey};
use crate::provider::{Disruption, Limits};

/// Lighthouse.
pub(super) static FACE: Face = Face {
    service: "lighthouse",
    version: "2020-03-24",
    limits: &LIMITS,
    import,
    stop,
    hazards: false,
    foretells: true,
    legacy: None,
};

/// FACTS 2.2 (PY-LH 3.1.177; rates: SEED-000, SEED-002 and the vendor's pages named there).
pub(super) static LIMITS: Limits = Limits {
    provider: ProviderKind::TencentLighthouse,
    bind_max: 100,
    power_max: 100,
    page_max: 100,
    delete_max: 10,
    key_name_max: 25,
    // The pages say "OpenSSH RSA" and no size; these are the sizes that all four clouds' tools make.
    key_bits: &[2048, 3072, 4096],
    disruption: Disruption::StopsInstance,
    whole_batch_fails: true,
    // "Up to ten SSH key pairs can be created in each region under one account" (DOC 1103/41392, 2022-04-06); what this
    // account may hold `DescribeGeneralResourceQuotas` tells.
    key_pairs_max: Some(10),
    // DescribeInstances: none seen. StopInstances: unconfirmed.
    requests_per_second: &[
        ("ImportKeyPair", 10),
        ("DescribeKeyPairs", 100),
        ("AssociateInstancesKeyPairs", 10),
        ("DisassociateInstancesKeyPairs", 20),
        ("DeleteKeyPairs", 10),
        ("StartInstances", 10),
        ("RebootInstances", 10),
        ("StopInstances", 10),
    ],
    // Shut down, bound, started: our judgement, no page says.
    downtime: Duration::from_secs(120),
};

fn import(name: &KeyPairName, key: &PublicKey) -> Value {
    json!({"KeyName": name.as_str(), "PublicKey": key.to_openssh()})
}

/// SOFT_FIRST asks the guest and cuts the power if it does not answer: the cloud's own default, said aloud.
fn stop(force: bool) -> Value {
    json!({"StopType": if force { "HARD" } else { "SOFT_FIRST" }})
}
