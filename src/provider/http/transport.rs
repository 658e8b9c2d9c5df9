//! The door to the network: one request out, one answer in. It must never repeat, redirect, sign or interpret.

use async_trait::async_trait;

/// A request, ready to be sent. Header names are in lower case; `host` is among them and equals the URL's.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `DELETE`.
    pub method: &'static str,
    /// `http://127.0.0.1:8080` or `https://lighthouse.tencentcloudapi.com`: scheme and authority, no path.
    pub origin: String,
    /// The path, percent-encoded, beginning with `/`.
    pub path: String,
    /// The query exactly as it goes over the wire, without `?`; empty for none.
    pub query: String,
    /// The headers, byte for byte as signed.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer, its body whole and no larger than [`BODY_MAX`].
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The largest answer that is read. A page of 1,000 BCC instances is about 2 MB.
pub const BODY_MAX: usize = 8 * 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request certainly never left (name resolution, connection refused, TLS handshake).
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have arrived (time-out, connection lost, body cut off).
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// An answer came that is larger than [`BODY_MAX`].
    #[error("the answer is larger than {BODY_MAX} bytes")]
    TooLarge,
}

/// One request out, one answer in.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends the request once.
    async fn send(&self, request: &Request) -> Result<Response, TransportError>;
}
