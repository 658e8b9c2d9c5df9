//! The in-process door: a [`Transport`] that carries requests straight into a world, so that thousands of rotations a
//! second are possible. Time is the clock's; it must never look at the machine's own.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::door::handle;
use super::world::{World, later};
use crate::clock::Clock;
use crate::net::{Request, Response, Transport, TransportError};

/// A transport to one cloud of a world.
pub struct Direct {
    world: Arc<Mutex<World>>,
    cloud: usize,
    clock: Arc<dyn Clock>,
}

impl Direct {
    /// The way to the cloud of this number. Several may share one world.
    pub fn new(world: Arc<Mutex<World>>, cloud: usize, clock: Arc<dyn Clock>) -> Self {
        Self { world, cloud, clock }
    }
}

#[async_trait]
impl Transport for Direct {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let now = self.clock.now();
        // A panic elsewhere must not hide behind a poisoned lock here.
        let outcome = {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            handle(&mut world, self.cloud, now, request)
        };
        if !outcome.delay.is_zero() {
            self.clock.sleep_until(later(now, outcome.delay)).await;
        }
        outcome.reply.ok_or_else(|| TransportError::NoAnswer("the connection was closed without an answer".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::Weather;

    /// A clock that jumps to whatever is waited for.
    struct Jumping(Mutex<jiff::Timestamp>);

    #[async_trait]
    impl Clock for Jumping {
        fn now(&self) -> jiff::Timestamp {
            *self.0.lock().unwrap()
        }
        async fn sleep_until(&self, until: jiff::Timestamp) {
            let mut now = self.0.lock().unwrap();
            *now = until.max(*now);
        }
    }

    #[tokio::test]
    async fn requests_go_straight_into_the_world_and_waiting_is_the_clocks() {
        let start = "2026-11-22T12:00:00Z".parse().unwrap();
        let clock = Arc::new(Jumping(Mutex::new(start)));
        let mut world = World::new(1, start);
        let cloud = world.open_cloud(ProviderKind::TencentCvm);
        world.settings.latency = Duration::from_secs(2);
        world.faults.script(None, "", 2, Weather::Lost { applied: true });
        let world = Arc::new(Mutex::new(world));
        let direct = Direct::new(Arc::clone(&world), cloud, clock.clone());
        let request = Request {
            method: "POST",
            origin: "http://127.0.0.1:1".into(),
            path: "/".into(),
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let answer = direct.send(&request).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(clock.now(), later(start, Duration::from_secs(2)));
        assert!(matches!(direct.send(&request).await, Err(TransportError::NoAnswer(_))));
        assert_eq!(world.lock().unwrap().calls().values().sum::<u64>(), 2);
    }
}
