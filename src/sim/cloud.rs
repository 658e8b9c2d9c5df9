//! One cloud of a world: one account in one region, its machines, key pairs and request buckets. It knows no wire
//! format; the faces do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::keys::KeyPair;
use super::machine::{Machine, Power};
use super::rng::Rng;
use crate::model::ProviderKind;

/// A rule of the clouds that a client broke. A correct client commits none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A wrong signature, an unknown credential, a malformed Authorization header.
    Signature,
    /// A timestamp outside the window.
    Clock,
    /// A nonce used twice.
    Nonce,
    /// Too many ids, too large a page, too many filters or values.
    Limit,
    /// Faster than the documented request rate.
    Rate,
    /// A machine in a state that the action does not take.
    State,
    /// Unknown or missing parameters, wrong method, wrong content type, malformed ids, names or keys.
    Malformed,
}

/// One refusal for which the client is to blame.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The cloud.
    pub provider: ProviderKind,
    /// When.
    pub at: Timestamp,
    /// The action called.
    pub action: String,
    /// Which rule.
    pub rule: Rule,
    /// The code answered and what it was about.
    pub detail: String,
}

/// One account in one region of one cloud.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// Which cloud.
    pub kind: ProviderKind,
    /// The region; calls for another one are refused.
    pub region: String,
    /// The account's access key id.
    pub access_key_id: String,
    /// Its secret. The simulator's secrets are made from the seed and open nothing.
    pub access_key_secret: String,
    /// A session token that must come with each call, if one is set.
    pub session_token: Option<String>,
    /// Actions that the account's policy does not allow: refused to whoever signs well.
    pub denied: BTreeSet<String>,
    /// How many key pairs the account may hold.
    pub key_pairs_max: usize,
    /// How far this cloud's clock (its `Date` header and its signature windows) is ahead of the world's.
    pub skew: SignedDuration,
    pub(super) legacy_calls: u64,
    nonces: HashMap<String, Timestamp>,
    sweep_at: usize,
    machines: Vec<Machine>,
    index: HashMap<String, usize>,
    pub(super) key_pairs: Vec<KeyPair>,
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) violations: Vec<Violation>,
    buckets: BTreeMap<String, (f64, Timestamp)>,
}

impl Cloud {
    /// An empty account with the cloud's default region and quotas.
    pub(super) fn new(kind: ProviderKind, rng: &mut Rng) -> Self {
        // The regions are examples of FACTS §2.1, §4.2 and §5.3. Quotas: Lighthouse 10 a region; ECS and BCC 500
        // (FACTS §4.1, §5.1). CVM prints no number: 100 is ours.
        let (region, id, key_pairs_max) = match kind {
            ProviderKind::TencentLighthouse => ("ap-singapore", format!("AKID{}", rng.id(32)), 10),
            ProviderKind::TencentCvm => ("ap-guangzhou", format!("AKID{}", rng.id(32)), 100),
            ProviderKind::AlibabaEcs => ("cn-beijing", format!("LTAI{}", rng.id(20)), 500),
            ProviderKind::BaiduBcc => ("bj", rng.id(32), 500),
        };
        Self {
            kind,
            region: region.to_string(),
            access_key_id: id,
            access_key_secret: rng.id(32),
            session_token: None,
            denied: BTreeSet::new(),
            key_pairs_max,
            skew: SignedDuration::ZERO,
            legacy_calls: 0,
            nonces: HashMap::new(),
            sweep_at: 1024,
            machines: Vec::new(),
            index: HashMap::new(),
            key_pairs: Vec::new(),
            calls: BTreeMap::new(),
            violations: Vec::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Every machine, those that are gone too, in the order in which they were made.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }
    /// The machine of this id, unless it is gone.
    pub fn machine(&self, id: &str) -> Option<&Machine> {
        self.position(id).map(|at| &self.machines[at])
    }
    /// Where the machine of this id stands in [`Cloud::machines`], unless it is gone.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied().filter(|at| self.machines[*at].power != Power::Gone)
    }
    pub(super) fn machine_at(&mut self, at: usize) -> &mut Machine {
        &mut self.machines[at]
    }
    pub(super) fn add(&mut self, machine: Machine) {
        self.index.insert(machine.id.clone(), self.machines.len());
        self.machines.push(machine);
    }
    /// The key pairs, oldest first.
    pub fn key_pairs(&self) -> &[KeyPair] {
        &self.key_pairs
    }
    /// The key pair of this handle.
    pub fn key_pair(&self, id: &str) -> Option<&KeyPair> {
        self.key_pairs.iter().find(|pair| pair.id == id)
    }
    /// How often each action was called, refused calls too.
    pub fn calls(&self) -> &BTreeMap<String, u64> {
        &self.calls
    }
    /// How many of the calls came by the legacy endpoint (CVM's).
    pub fn legacy_calls(&self) -> u64 {
        self.legacy_calls
    }
    /// What clients did wrong.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
    /// The ids of the machines that each key pair is bound to, by the cloud's record.
    pub fn bound(&self) -> HashMap<&str, Vec<&str>> {
        let mut bound: HashMap<&str, Vec<&str>> = HashMap::new();
        for machine in self.machines.iter().filter(|machine| machine.power != Power::Gone) {
            for key in &machine.record_keys {
                bound.entry(key).or_default().push(&machine.id);
            }
        }
        bound
    }
    /// The public key lines of these key pairs; `None` if one of them does not exist.
    pub fn lines(&self, keys: &[String]) -> Option<Vec<String>> {
        keys.iter().map(|id| self.key_pair(id).map(|pair| pair.line.clone())).collect()
    }

    /// Takes one request from the action's bucket: `per_second` of them flow in, and as many stand ready. A tenth
    /// and one more are let through, so that the jitter of a real socket does not make a careful client a bad one.
    pub fn admit(&mut self, action: &str, per_second: u32, now: Timestamp) -> bool {
        let (rate, depth) = (f64::from(per_second), f64::from(per_second) * 1.1 + 1.0);
        let (tokens, since) = self.buckets.entry(action.to_string()).or_insert((depth, now));
        *tokens = (*tokens + now.duration_since(*since).as_secs_f64().max(0.0) * rate).min(depth);
        *since = now.max(*since);
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }

    /// Remembers a nonce; false if it was seen within `window`.
    pub fn remember_nonce(&mut self, nonce: &str, now: Timestamp, window: Duration) -> bool {
        let fresh = |seen: &Timestamp| now.duration_since(*seen).unsigned_abs() < window;
        // Old ones are swept out only when they have doubled: a sweep a call would be quadratic.
        if self.nonces.len() >= self.sweep_at {
            self.nonces.retain(|_, seen| fresh(seen));
            self.sweep_at = (self.nonces.len() * 2).max(1024);
        }
        let seen = self.nonces.insert(nonce.to_string(), now);
        !seen.as_ref().is_some_and(fresh)
    }

    /// Writes down what the client did wrong.
    pub fn blame(&mut self, rule: Rule, action: &str, at: Timestamp, detail: impl Into<String>) {
        let violation = Violation { provider: self.kind, at, action: action.to_string(), rule, detail: detail.into() };
        self.violations.push(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_refused_within_its_window_and_forgotten_after_it() {
        let mut cloud = Cloud::new(ProviderKind::AlibabaEcs, &mut Rng::new(1));
        let at = |seconds: i64| Timestamp::from_second(1_795_348_800 + seconds).unwrap();
        let window = Duration::from_secs(900);
        assert!(cloud.remember_nonce("a", at(0), window));
        assert!(!cloud.remember_nonce("a", at(1), window));
        assert!(!cloud.remember_nonce("a", at(900), window), "each use begins the window anew");
        assert!(cloud.remember_nonce("a", at(1800), window));
        for number in 0..5_000 {
            assert!(cloud.remember_nonce(&number.to_string(), at(2_000 + number), window));
        }
        assert!(cloud.nonces.len() < 3_000, "old ones are swept out");
    }
}
