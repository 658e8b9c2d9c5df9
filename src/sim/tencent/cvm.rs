//! stub
use super::{Product, Refused};
use crate::provider::http::transport::{Request, Response};
use crate::sim::door::{Call, Face};
use crate::sim::world::World;
use serde_json::Value;
pub(in crate::sim) struct Cvm;
impl Product for Cvm {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const ACTIONS: &'static [(&'static str, Option<u32>)] = &[];
    fn act(_world: &mut World, _call: &Call<'_>) -> Result<Value, Refused> {
        Err(super::refused("InvalidAction", ""))
    }
}
impl Face for Cvm {
    fn action(&self, request: &Request) -> String {
        super::action(request)
    }
    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        super::answer::<Self>(world, call)
    }
    fn throttled(&self, request_id: &str) -> Response {
        super::throttled(request_id)
    }
    fn internal_error(&self, request_id: &str) -> Response {
        super::internal_error(request_id)
    }
}
