//! The in-process door: a [`Transport`] that carries requests straight into a world, so that thousands of rotations a
//! second are possible. Time is the clock's; it must never look at the machine's own.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::door::handle;
use super::world::{World, later};
use crate::clock::Clock;
use crate::provider::http::transport::{Request, Response, Transport, TransportError};

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
