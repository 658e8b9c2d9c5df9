//! Request rates of each action, kept by governor on our own clock, so that a simulation is their master too.
//! It must never let a call wait past its deadline.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use jiff::Timestamp;

use crate::clock::Clock;

type Limiter = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Nanos>>;

/// The request rates of one account in one region.
pub struct Throttle {
    clock: Arc<dyn Clock>,
    actions: BTreeMap<String, Action>,
}

/// One action's rate, and the queue before it: who asks first goes first, however many fleets ask.
struct Action {
    limiter: Limiter,
    queue: tokio::sync::Mutex<()>,
}

impl Throttle {
    /// Limits each action to so many requests a second. Actions that are not named, or limited to 0, are not limited.
    pub fn new(clock: Arc<dyn Clock>, rates: &BTreeMap<String, u32>) -> Self {
        let limiter = |(action, rate): (&String, &u32)| {
            let rate = NonZeroU32::new(*rate)?;
            // Evenly spaced and rounded up: a burst of `rate` with `rate` more refilled in the same second would be
            // twice what the cloud allows.
            let spacing = Duration::from_nanos(1_000_000_000u64.div_ceil(u64::from(rate.get())));
            let quota = Quota::with_period(spacing)?.allow_burst(NonZeroU32::MIN);
            let limiter = RateLimiter::direct_with_clock(quota, Ticks::new(clock.clone()));
            Some((action.clone(), Action { limiter, queue: tokio::sync::Mutex::default() }))
        };
        let actions = rates.iter().filter_map(limiter).collect();
        Self { clock, actions }
    }

    /// Waits for this action's turn. If that would not come before `deadline`, answers at once when it would.
    pub async fn turn(&self, action: &str, deadline: Timestamp) -> Result<(), Timestamp> {
        let Some(Action { limiter, queue }) = self.actions.get(action) else { return Ok(()) };
        // Who is before us waits for its own turn at most; if ours is past its deadline then, it is not waited for.
        let _first = queue.lock().await;
        loop {
            let wait = match limiter.check() {
                Ok(()) => return Ok(()),
                Err(early) => early.wait_time_from(limiter.clock().now()),
            };
            let now = self.clock.now();
            let turn = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
            if turn >= deadline {
                return Err(turn);
            }
            self.clock.sleep_until(turn).await;
        }
    }
}

/// Our clock as governor reads it: nanoseconds since the first reading, of which none is lost when the machine's
/// clock is set back (the time then stands still for one reading, not for an hour).
#[derive(Clone)]
struct Ticks {
    clock: Arc<dyn Clock>,
    seen: Arc<Mutex<(Timestamp, u64)>>,
}

impl Ticks {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let start = clock.now();
        // Not zero: governor's first reading is its origin, and it reads before that.
        Self { clock, seen: Arc::new(Mutex::new((start, 1))) }
    }
}

impl GovernorClock for Ticks {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let step = u64::try_from(now.duration_since(seen.0).as_nanos()).unwrap_or(0);
        *seen = (now, seen.1.saturating_add(step));
        Nanos::new(seen.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::http::door::tests::ManualClock;

    fn rates(rate: u32) -> BTreeMap<String, u32> {
        BTreeMap::from([("Bind".to_string(), rate)])
    }

    #[tokio::test]
    async fn no_second_ever_holds_more_requests_than_the_rate() {
        for rate in [1, 3, 7, 10, 100] {
            let clock = ManualClock::at("2026-11-22T00:00:00Z");
            let throttle = Throttle::new(clock.clone(), &rates(rate));
            let far = clock.now().saturating_add(Duration::from_secs(600)).unwrap();
            let mut sent = Vec::new();
            for _ in 0..=rate * 2 {
                throttle.turn("Bind", far).await.unwrap();
                sent.push(clock.now());
            }
            for pair in sent.windows(rate as usize + 1) {
                let span = pair[rate as usize].duration_since(pair[0]);
                assert!(span >= jiff::SignedDuration::from_secs(1), "{rate} a second: {span:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_turn_after_the_deadline_is_not_waited_for() {
        let clock = ManualClock::at("2026-11-22T00:00:00Z");
        let throttle = Throttle::new(clock.clone(), &rates(1));
        let soon = clock.now().saturating_add(Duration::from_millis(500)).unwrap();
        throttle.turn("Bind", soon).await.unwrap();
        let turn = throttle.turn("Bind", soon).await.unwrap_err();
        assert_eq!(turn, "2026-11-22T00:00:01Z".parse().unwrap());
        assert_eq!(clock.now(), "2026-11-22T00:00:00Z".parse().unwrap(), "nothing was waited for");
    }

    #[tokio::test]
    async fn other_actions_are_not_held_up() {
        let clock = ManualClock::at("2026-11-22T00:00:00Z");
        let throttle = Throttle::new(clock.clone(), &rates(1));
        for _ in 0..100 {
            throttle.turn("Look", clock.now()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_clock_set_back_by_an_hour_costs_no_hour() {
        let clock = ManualClock::at("2026-11-22T12:00:00Z");
        let throttle = Throttle::new(clock.clone(), &rates(1));
        throttle.turn("Bind", Timestamp::MAX).await.unwrap();
        clock.set("2026-11-22T11:00:00Z");
        throttle.turn("Bind", Timestamp::MAX).await.unwrap();
        assert_eq!(clock.now(), "2026-11-22T11:00:01Z".parse().unwrap());
    }
}
