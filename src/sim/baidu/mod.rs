//! The baidu face.

use super::door::{Call, Face};
use super::world::World;
use crate::provider::http::transport::{Request, Response};

/// The face.
pub(super) struct Bcc;

impl Face for Bcc {
    fn action(&self, _request: &Request) -> String {
        String::new()
    }
    fn answer(&self, _world: &mut World, call: &Call<'_>) -> Response {
        self.internal_error(call.request_id)
    }
    fn throttled(&self, _request_id: &str) -> Response {
        Response { status: 501, headers: Vec::new(), body: Vec::new() }
    }
    fn internal_error(&self, _request_id: &str) -> Response {
        Response { status: 501, headers: Vec::new(), body: Vec::new() }
    }
}
