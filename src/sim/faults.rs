//! What goes wrong, on request: by chance from the world's seed, or by script, the n-th call of an action. It must
//! never go wrong in a way that a cloud could not: every answer here is one that the fact sheet documents, or one
//! that any network can give.
//!
//! The grammar of `--faults` is a list of `NAME=VALUE`, separated by commas:
//!
//! | | |
//! |---|---|
//! | `throttle=P` | the cloud's answer for too many requests; nothing is done |
//! | `error500=P` | a server fault in the cloud's own shape, or a gateway's bare 502; done or not, each as often |
//! | `lost=P` | the connection closes without an answer; done or not, each as often |
//! | `late=P:DURATION` | no answer, and the call lands that much later |
//! | `delay=P:DURATION` | done at once, answered that much later |
//! | `rubbish=P` | done or not, and answered with a web page or with half an answer |
//! | `opfail=P` | an accepted operation ends FAILED, without its effect |
//! | `halfdone=P` | a bind refused because of one instance is done to the ones before it |
//! | `poison=N` or `poison=ID` | N instances in a hundred, or this one, make every bind fail that names them |
//! | `flat=P` | what goes well at CVM's legacy endpoint is answered in the flat shape, though the request names a version, and whatever its gateway refuses |
//! | `skew=DURATION` | the clouds' clocks are so far ahead; `-5m` behind |
//!
//! `P` is a share from 0 to 1. A name may be given once, `poison` more often.

use std::time::Duration;

use jiff::SignedDuration;

use super::rng::Rng;
use crate::model::ProviderKind;

/// What goes wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// The cloud's answer for too many requests; nothing is done.
    Throttled,
    /// A server fault; the call was carried out or not.
    ServerError {
        /// Whether the call was carried out.
        applied: bool,
        /// A gateway's bare 502 instead of the cloud's own shape.
        gateway: bool,
    },
    /// No answer; the call was carried out or not.
    Lost {
        /// Whether the call was carried out.
        applied: bool,
    },
    /// No answer, and the call lands after this time.
    Late(Duration),
    /// Carried out at once, answered after this time.
    Delayed(Duration),
    /// These bytes instead of an answer; the call was carried out or not.
    Answer {
        /// Whether the call was carried out.
        applied: bool,
        /// The status.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
    /// Carried out, and answered with only so many bytes of the body.
    CutOff(usize),
    /// Carried out, and answered with a `Date` header that is so far ahead.
    Skewed(SignedDuration),
}

/// A fault that strikes one call.
#[derive(Clone, Debug)]
pub struct Scripted {
    /// The cloud; `None` for any.
    pub provider: Option<ProviderKind>,
    /// The action, as [`super::World::calls`] counts it; empty for any.
    pub action: String,
    /// Which of the matching calls from now on: 1 for the next.
    pub nth: u32,
    /// What happens to it.
    pub weather: Weather,
}

/// What goes wrong. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Share of calls throttled.
    pub throttle: f64,
    /// Share of calls answered with a server fault.
    pub error500: f64,
    /// Share of calls without an answer.
    pub lost: f64,
    /// Share of calls that land late, and how late.
    pub late: (f64, Duration),
    /// Share of calls answered late, and how late.
    pub delay: (f64, Duration),
    /// Share of calls answered with rubbish.
    pub rubbish: f64,
    /// Share of accepted operations that end FAILED.
    pub operation_fails: f64,
    /// Share of refused batches whose instances before the culprit are done nevertheless.
    pub half_done: f64,
    /// Share of the calls to CVM's legacy endpoint that are answered in the flat shape, though they name a version,
    /// where they go well or its gateway refuses them.
    pub flat: f64,
    /// Instances in a hundred that are poisoned when a fleet is made.
    pub poison_share: u8,
    /// Instances poisoned by id when a fleet is made.
    pub poisoned: Vec<String>,
    /// How far ahead the clouds' clocks are when a fleet is made.
    pub skew: SignedDuration,
    scripted: Vec<Scripted>,
}

/// Why a `--faults` text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no fault: write throttle=P, error500=P, lost=P, late=P:DURATION, delay=P:DURATION, rubbish=P, opfail=P, \
     halfdone=P, flat=P, poison=N, poison=ID or skew=DURATION, where P is a share from 0 to 1"
)]
pub struct BadFaults(String);

impl std::str::FromStr for Faults {
    type Err = BadFaults;
    fn from_str(text: &str) -> Result<Self, BadFaults> {
        let mut faults = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || BadFaults(part.to_string());
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            if name != "poison" && seen.contains(&name) {
                return Err(bad());
            }
            seen.push(name);
            let share =
                |value: &str| value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(bad);
            let timed = || {
                let (of, time) = value.split_once(':').ok_or_else(bad)?;
                Ok((share(of)?, crate::model::parse_duration(time).map_err(|_| bad())?))
            };
            match name {
                "throttle" => faults.throttle = share(value)?,
                "error500" => faults.error500 = share(value)?,
                "lost" => faults.lost = share(value)?,
                "late" => faults.late = timed()?,
                "delay" => faults.delay = timed()?,
                "rubbish" => faults.rubbish = share(value)?,
                "opfail" => faults.operation_fails = share(value)?,
                "halfdone" => faults.half_done = share(value)?,
                "flat" => faults.flat = share(value)?,
                "poison" => match value.parse::<u8>() {
                    Ok(share) if share <= 100 => faults.poison_share = share,
                    Err(_) if value.contains('-') => faults.poisoned.push(value.to_string()),
                    _ => return Err(bad()),
                },
                "skew" => {
                    let (size, behind) = value.strip_prefix('-').map_or((value, false), |size| (size, true));
                    let size = crate::model::parse_duration(size).map_err(|_| bad())?;
                    let size = SignedDuration::try_from(size).map_err(|_| bad())?;
                    faults.skew = if behind { -size } else { size };
                }
                _ => return Err(bad()),
            }
        }
        Ok(faults)
    }
}

impl Faults {
    /// Adds a fault that strikes one call.
    pub fn script(&mut self, provider: Option<ProviderKind>, action: &str, nth: u32, weather: Weather) {
        self.scripted.push(Scripted { provider, action: action.to_string(), nth, weather });
    }

    /// How many scripted faults have not struck yet.
    pub fn scripted_left(&self) -> usize {
        self.scripted.len()
    }

    /// What happens to this call. Scripted faults come first; each strikes once.
    pub(super) fn draw(&mut self, provider: ProviderKind, action: &str, rng: &mut Rng) -> Weather {
        let mut struck = None;
        self.scripted.retain_mut(|script| {
            let matches = script.provider.is_none_or(|of| of == provider)
                && (script.action.is_empty() || script.action == action);
            if !matches {
                return true;
            }
            script.nth = script.nth.saturating_sub(1);
            if script.nth == 0 && struck.is_none() {
                struck = Some(script.weather.clone());
                return false;
            }
            true
        });
        if let Some(weather) = struck {
            return weather;
        }
        if rng.chance(self.throttle) {
            return Weather::Throttled;
        }
        if rng.chance(self.error500) {
            return Weather::ServerError { applied: rng.chance(0.5), gateway: rng.chance(0.3) };
        }
        if rng.chance(self.lost) {
            return Weather::Lost { applied: rng.chance(0.5) };
        }
        if rng.chance(self.late.0) {
            return Weather::Late(self.late.1);
        }
        if rng.chance(self.rubbish) {
            return if rng.chance(0.5) {
                Weather::CutOff(rng.below(40))
            } else {
                let body = b"<html><body><h1>It works!</h1></body></html>".to_vec();
                Weather::Answer { applied: rng.chance(0.5), status: 200, body }
            };
        }
        if rng.chance(self.delay.0) {
            return Weather::Delayed(self.delay.1);
        }
        Weather::Fair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_reads_every_fault_and_refuses_the_rest() {
        let text = "throttle=0.05, error500=0.03,lost=0.03,late=0.01:30s,delay=0.1:500ms,rubbish=1,opfail=0.5,\
                    halfdone=0.2,flat=0.3,poison=1,poison=i-abc,skew=-5m";
        let faults: Faults = text.parse().unwrap();
        assert_eq!((faults.throttle, faults.error500, faults.lost), (0.05, 0.03, 0.03));
        assert_eq!(faults.late, (0.01, Duration::from_secs(30)));
        assert_eq!(faults.delay, (0.1, Duration::from_millis(500)));
        assert_eq!((faults.rubbish, faults.operation_fails, faults.half_done, faults.flat), (1.0, 0.5, 0.2, 0.3));
        assert_eq!((faults.poison_share, faults.poisoned.as_slice()), (1, ["i-abc".to_string()].as_slice()));
        assert_eq!(faults.skew, SignedDuration::from_mins(-5));
        assert!("".parse::<Faults>().is_ok());
        for bad in ["throttle", "throttle=2", "throttle=-1", "lost=NaN", "delay=0.1", "delay=0.1:x", "nonsense=1"]
            .into_iter()
            .chain(["poison=101", "poison=x", "skew=", "lost=0.1,lost=0.2", "throttle=0.1;lost=0.1"])
        {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scripted_fault_strikes_the_nth_matching_call_once() {
        let mut faults = Faults::default();
        faults.script(Some(ProviderKind::BaiduBcc), "attach", 2, Weather::Throttled);
        let mut rng = Rng::new(1);
        let mut draw = |provider, action| faults.draw(provider, action, &mut rng);
        assert_eq!(draw(ProviderKind::BaiduBcc, "attach"), Weather::Fair);
        assert_eq!(draw(ProviderKind::BaiduBcc, "detach"), Weather::Fair);
        assert_eq!(draw(ProviderKind::AlibabaEcs, "attach"), Weather::Fair);
        assert_eq!(draw(ProviderKind::BaiduBcc, "attach"), Weather::Throttled);
        assert_eq!(draw(ProviderKind::BaiduBcc, "attach"), Weather::Fair);
        assert_eq!(faults.scripted_left(), 0);
    }
}
