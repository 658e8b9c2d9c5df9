//! Journals in a compact notation.

use super::*;

/// A journal in the making. One line is an entry, `SECOND WORDS`; instances are letters in the order of the plan, each
/// found as `a=r/old@boot` (keys `old` and no boot marker where nothing is said):
///
/// `run:before 1` `done:before 1` `fail:after 1` hooks of a batch ·
/// `plan` `stored` `imported` · `>CALL a=r b=s` started · `ok CALL a b #request` accepted · `ERROR CALL a b +WAIT` failed
/// · `down a` `changing a` `bound a=r@boot` `active a` `running a` `gone a` · `out a` excluded · `resumed` · `held` `held:canary` … ·
/// `release` `leave-off a` `destroy-allowed` · `abandon` · `waived` · `end`. Where logins prove the key: `pinned a=KEY@IMAGE b` (not
/// reached) · `anew a=KEY@IMAGE` pinned anew · `proven a b/taken c/unknown` · `late a` · `held:host a=PINNED/SEEN` · `trust a=KEY`.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) plan: RotatePlan,
    pub(super) instances: Vec<PlannedInstance>,
    pub(super) entries: Vec<Entry>,
}

impl Story {
    /// A plan: powers, batch by batch, and what of the policy is not 10 down, 0 failed, no soak: `"r rr s max=2"`.
    pub(super) fn new(cloud: &str, fleet: &str) -> Self {
        let mut policy = Policy {
            unavailable_max: 10,
            failures_max: 0,
            soak: Duration::ZERO,
            force_stop: false,
            grace: Duration::from_secs(1000),
            verify: Default::default(),
            deliver: Vec::new(),
            pace: Default::default(),
        };
        let (mut instances, mut batch) = (Vec::new(), 0);
        for word in fleet.split_whitespace() {
            if word == "ssh" || word == "ssh-warn" {
                let old_key = if word == "ssh" { OldKey::Refuse } else { OldKey::Warn };
                policy.verify = login_with(old_key);
                continue;
            }
            if let Some((name, number)) = word.split_once('=') {
                let number: u32 = number.parse().unwrap();
                match name {
                    "max" => policy.unavailable_max = number,
                    "failures" => policy.failures_max = number,
                    "growing" => policy.pace.growing = number,
                    "row" => policy.pace.failures_in_a_row = Some(number),
                    "takes" => policy.pace.batch_time = Duration::from_secs(number.into()),
                    "before" => policy.pace.hooks.before_batch = Some(hook(number)),
                    "after" => policy.pace.hooks.after_batch = Some(hook(number)),
                    "soak" => policy.soak = Duration::from_secs(number.into()),
                    other => panic!("{other} is no policy"),
                }
                continue;
            }
            for letter in word.chars() {
                let id = char::from(b'a' + instances.len() as u8).to_string();
                instances.push(PlannedInstance {
                    id: id.as_str().into(),
                    name: id,
                    power: power(letter),
                    keys: vec!["old".into()],
                    part: Part::Batch(batch),
                    pin: None,
                    known: None,
                });
            }
            batch += 1;
        }
        let plan = RotatePlan {
            fleet: "web".into(),
            place: place(),
            select: Select::All,
            key_name: "rk1_new".into(),
            key: Default::default(),
            undoes: None,
            compromised: false,
            key_bits: 4096,
            disruption: disruption(cloud),
            policy,
        };
        Self { plan, instances, entries: Vec::new() }
    }

    /// The same with key and pair, made in seconds 0 to 2.
    pub(super) fn begun(cloud: &str, fleet: &str) -> Self {
        Self::new(cloud, fleet).tell("0 plan\n1 stored\n2 imported")
    }

    pub(super) fn tell(mut self, text: &str) -> Self {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (second, words) = line.split_once(' ').unwrap_or_else(|| panic!("no entry: {line}"));
            let time = at(second.parse().unwrap_or_else(|_| panic!("no second: {line}")));
            let event = self.event(time, words);
            self.push(time, event);
        }
        self
    }

    pub(super) fn push(&mut self, at: Timestamp, event: Event) {
        let by = match event.is_operators() {
            true => Author::Operator("op".into()),
            false => Author::Engine("e1".into()),
        };
        self.entries.push(Entry { seq: self.entries.len() as u64 + 1, at, by, event });
    }

    fn batch_of(&self, id: &str) -> u32 {
        let planned = self.instances.iter().find(|planned| planned.id.as_str() == id);
        match planned.map(|planned| &planned.part) {
            Some(Part::Batch(batch)) => *batch,
            _ => 0,
        }
    }

    pub(super) fn event(&self, time: Timestamp, words: &str) -> Event {
        let mut words = words.split_whitespace();
        let verb = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        if let Some(name) = verb.strip_prefix('>') {
            let found: Vec<Found> = words.iter().map(|word| found(word)).collect();
            let batch = found.first().map_or(0, |found| self.batch_of(found.instance.as_str()));
            return Event::Started { step: step(name, batch), call: call(name), found };
        }
        let mark = |sign: char| words.iter().find_map(|word| word.strip_prefix(sign));
        let plain = |from: usize| words.iter().skip(from).filter(|word| !word.starts_with(['#', '+'])).copied();
        let ids = |from: usize| plain(from).map(Into::into).collect::<Vec<crate::model::InstanceId>>();
        let batch = |from: usize| match plain(from).next() {
            Some(number) if number.parse::<u32>().is_ok() => number.parse().unwrap(),
            Some(id) => self.batch_of(id),
            None => 0,
        };
        if let Some(error) = error_of(verb) {
            let wait: u64 = mark('+').map_or(1, |wait| wait.parse().unwrap());
            // `away settle 0`: the step as a whole.
            let instances = ids(1).into_iter().filter(|id| id.as_str().parse::<u32>().is_err()).collect();
            let retry_at = later(time, Duration::from_secs(wait));
            return Event::Failed { step: step(words[0], batch(1)), instances, error, retry_at };
        }
        if let Some((verb @ ("run" | "done" | "fail"), name)) = verb.split_once(':') {
            let hook = if name == "before" { Hook::BeforeBatch } else { Hook::AfterBatch };
            let batch: u32 = words[0].parse().unwrap();
            let failure = (verb == "fail").then(|| HookFailure { why: "exit code 1".into(), output: "x\ny\n".into() });
            return match verb {
                "run" => Event::HookStarted { hook, batch },
                _ => Event::HookEnded { hook, batch, failure },
            };
        }
        match verb {
            "plan" => Event::Planned { digest: "d".into() },
            "stored" => {
                let public_key = PrivateKey::sample(1).public().clone();
                Event::KeyStored { fingerprint: public_key.fingerprint(), public_key }
            }
            "imported" => Event::KeyImported { key_pair: words.first().copied().unwrap_or("new").into() },
            "ok" => Event::Accepted {
                step: step(words[0], batch(1)),
                instances: ids(1),
                request_id: mark('#').map(str::to_string),
            },
            "down" => Event::Down { stopped: ids(0), changing: Vec::new() },
            "changing" => Event::Down { stopped: Vec::new(), changing: ids(0) },
            "bound" => Event::Bound {
                instances: words
                    .iter()
                    .map(|word| found(word))
                    .map(|found| BoundInstance { instance: found.instance, power: found.power, boot: found.boot })
                    .collect(),
            },
            "pinned" | "anew" => Event::Pinned {
                hosts: words
                    .iter()
                    .map(|word| word.split_once('=').unwrap_or((word, "")))
                    .map(|(id, key)| PinnedHost {
                        instance: id.into(),
                        pin: (!key.is_empty()).then(|| pin(key)),
                        reimaged: verb == "anew",
                    })
                    .collect(),
            },
            "proven" => Event::Verified {
                proofs: words
                    .iter()
                    .map(|word| match word.split_once('/') {
                        Some((id, "taken")) => proof(id, OldKeyFound::Taken),
                        Some((id, _)) => proof(id, OldKeyFound::NotKnown),
                        None => proof(word, OldKeyFound::Refused),
                    })
                    .collect(),
            },
            "late" => Event::Unproven { instances: ids(0), why: "no route".to_string() },
            "held:host" => {
                let (id, keys) = words[0].split_once('=').unwrap();
                let (pinned, seen) = keys.split_once('/').unwrap();
                let (pinned, seen) = (host_key(pinned), host_key(seen));
                Event::Held { reason: HoldReason::WrongHost { instance: id.into(), pinned, seen } }
            }
            "trust" => {
                let (id, key) = words[0].split_once('=').unwrap();
                Event::Trusted { instance: id.into(), host_key: host_key(key), note: String::new() }
            }
            "active" => Event::Activated { instances: ids(0) },
            "running" => Event::Running { instances: ids(0) },
            "gone" => Event::Gone { instances: ids(0) },
            "resumed" => Event::Resumed { away_since: at(0) },
            "out" => Event::Excluded {
                instances: ids(0)
                    .into_iter()
                    .map(|instance| ExcludedInstance { instance, reason: Exclusion::SettleMissed })
                    .collect(),
            },
            "held" => Event::Held { reason: HoldReason::Operator { note: "wait".into() } },
            "held:canary" => Event::Held { reason: HoldReason::Canary },
            "held:strange" => {
                let error = error_of("strange").unwrap();
                Event::Held { reason: HoldReason::Step { step: Step::Settle(0), error } }
            }
            "held:failures" => Event::Held { reason: HoldReason::Failures { failed: 1, allowed: 0 } },
            "held:row" => Event::Held { reason: HoldReason::FailuresInARow { failed: 2, limit: 2 } },
            "held:step" => Event::Held { reason: HoldReason::KeyMismatch },
            "release" => Event::Released { note: String::new(), allow: None },
            "leave-off" => Event::Released { note: String::new(), allow: Some(Allow::LeaveOff(words[0].into())) },
            "gone-allowed" => Event::Released { note: String::new(), allow: Some(Allow::Gone) },
            "destroy-allowed" => Event::Released { note: String::new(), allow: Some(Allow::Destroy) },
            "abandon" => Event::AbandonRequested { note: String::new() },
            "waived" => Event::GraceWaived { rotation: JournalId::NIL },
            "delivered" => Event::Delivered { delivery: words[0].parse().unwrap() },
            "undelivered-allowed" => Event::Released { note: String::new(), allow: Some(Allow::Undelivered) },
            "deleted" => Event::KeyPairDeleted,
            "destroyed" => Event::PrivateKeyDestroyed,
            "end" => Event::Ended { outcome: Outcome::Completed },
            "end:abandoned" => Event::Ended { outcome: Outcome::Abandoned },
            "end:kept" => Event::Ended { outcome: Outcome::Kept },
            "end:retired" => Event::Ended { outcome: Outcome::Retired },
            "end:recalled" => Event::Ended { outcome: Outcome::Recalled },
            other => panic!("{other} is no event"),
        }
    }

    pub(super) fn id(&self) -> JournalId {
        JournalId::derive(at(0), [1; 10])
    }

    pub(super) fn rotation(&self) -> Rotation {
        Rotation::fold(self.id(), self.plan.clone(), &self.instances, &self.entries).unwrap()
    }

    pub(super) fn illegal(&self) -> String {
        Rotation::fold(self.id(), self.plan.clone(), &self.instances, &self.entries).unwrap_err().to_string()
    }
}

pub(super) fn login_with(old_key: OldKey) -> Verify {
    Verify::Ssh(SshLogin {
        user: "root".to_string(),
        port: 22,
        address: AddressFrom::Private,
        old_key,
        connect_timeout: Duration::from_secs(10),
        jump: None,
        deadline: Duration::from_secs(600),
    })
}

/// The host key of this name.
pub(super) fn host_key(name: &str) -> HostKey {
    let fingerprint = serde_json::from_value(format!("SHA256:{name}").into()).unwrap();
    HostKey { fingerprint, algorithm: "ssh-ed25519".to_string() }
}

/// An image: `IMAGE` or, made anew by a request, `IMAGE!REQUEST`.
pub(super) fn image(text: &str) -> Image {
    let (id, reset) = text.split_once('!').map_or((text, None), |(id, reset)| (id, Some(reset.to_string())));
    Image { id: id.to_string(), reset }
}

/// A pin: `KEY` or `KEY@IMAGE`.
pub(super) fn pin(text: &str) -> Pin {
    let (key, shown) = text.split_once('@').map_or((text, None), |(key, shown)| (key, Some(image(shown))));
    Pin { host_key: host_key(key), image: shown }
}

/// A login that proved the new key.
pub(super) fn proof(id: &str, old_key: OldKeyFound) -> Proof {
    let key = PrivateKey::sample(1).public().fingerprint();
    Proof { instance: id.into(), key, host_key: host_key("H"), image: None, server: "SSH-2.0-x".to_string(), old_key }
}

fn hook(seconds: u32) -> HookCommand {
    HookCommand { command: vec!["drain".into()], timeout: Duration::from_secs(seconds.into()) }
}
