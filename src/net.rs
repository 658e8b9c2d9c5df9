//! The door to the network: one request out, one answer in. It must never repeat, redirect, sign or interpret.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};

/// A request, ready to be sent. Header names are in lower case; `host` is among them and equals the URL's.
/// `Debug` shows no header's value and no body: tokens and signatures stand there.
#[derive(Clone)]
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

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "{} {}{} {names:?} and {} bytes", self.method, self.origin, self.path, self.body.len())
    }
}

/// Wipes what may be secret in it: header values and body. The HTTP client's own buffers are not reached.
impl zeroize::Zeroize for Request {
    fn zeroize(&mut self) {
        self.headers.iter_mut().for_each(|(_, value)| value.zeroize());
        self.body.zeroize();
    }
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

/// Wipes the body. The HTTP client's own buffers are not reached.
impl zeroize::Zeroize for Response {
    fn zeroize(&mut self) {
        self.body.zeroize();
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

/// How long name resolution, connecting and the TLS handshake may take together.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a request may take as a whole, its answer's body included.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// The same for a service beside this machine, which answers at once or not at all. ALI-CRED (1.0.12) waits 1 s.
const BESIDE: Times = Times { connect: Duration::from_secs(1), request: Duration::from_secs(2) };

/// How long things may take.
#[derive(Clone, Copy)]
struct Times {
    connect: Duration,
    request: Duration,
}

/// Why an origin is none that rekeyd speaks to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not `https://host[:port]` or `http://host[:port]`.
    #[error("{0:?} is no endpoint: write https://HOST or https://HOST:PORT, without user, path or query")]
    Malformed(String),
    /// Plain http beyond this machine would show every request to the way in between.
    #[error("{0:?}: plain http is allowed to this machine only (127.0.0.0/8, [::1], localhost); use https")]
    PlainHttp(String),
}

/// An origin that has been looked at: `https`, or `http` to loopback; no user, path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    authority: String,
    loopback: bool,
}

impl Origin {
    /// Reads `https://host[:port]`; one `/` behind it is forgiven.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let malformed = || OriginError::Malformed(hide_user(text));
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some(("http", rest)) => ("http", rest),
            _ => return Err(malformed()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let url = reqwest::Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| malformed())?;
        let shown = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_string(),
            (None, _) => return Err(malformed()),
        };
        // The parser writes lower case and leaves out `:443`. Whatever else it would change (a user, a path, blanks)
        // is no part of an endpoint.
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let bare_port = authority.strip_suffix(default_port).unwrap_or(authority);
        let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if !shown.chars().all(legal)
            || !shown.eq_ignore_ascii_case(bare_port)
            || url.path() != "/"
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(malformed());
        }
        let bare = shown.rsplit_once(':').filter(|_| url.port().is_some()).map_or(shown.as_str(), |(host, _)| host);
        let address = bare.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback = bare == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if scheme == "http" && !loopback {
            return Err(OriginError::PlainHttp(hide_user(text)));
        }
        Ok(Self { scheme, authority: shown, loopback })
    }

    /// The host, with its port where it has one: what the `host` header says and the signature covers.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Where a cloud's metadata service answers its own machines: by plain http, since nobody between has a certificate for a
/// link-local address. Tencent: PY-TC (3.1.195) has the name, the address is what it resolves to on every CVM. Alibaba:
/// ALI-CRED (1.0.12).
const METADATA: [&str; 3] = ["metadata.tencentyun.com", "169.254.0.23", "100.100.100.200"];
/// What a question to it may bear: nothing that is ours.
const METADATA_HEADERS: [&str; 4] =
    ["host", "accept", "x-aliyun-ecs-metadata-token", "x-aliyun-ecs-metadata-token-ttl-seconds"];

/// The one exception to plain http on loopback only (decision 0021): a question to a cloud's metadata service, on its own
/// port, that shows nothing of ours to whoever may answer in its place. `None`: it is none, and the rule holds.
fn metadata(request: &Request) -> Option<Result<Origin, TransportError>> {
    let host = METADATA.into_iter().find(|host| request.origin.strip_prefix("http://") == Some(host))?;
    let bare = matches!(request.method, "GET" | "PUT")
        && request.path.starts_with("/latest/")
        && request.query.is_empty()
        && request.body.is_empty()
        && request.headers.iter().all(|(name, _)| METADATA_HEADERS.contains(&name.as_str()));
    Some(match bare {
        true => Ok(Origin { scheme: "http", authority: host.to_string(), loopback: false }),
        false => Err(TransportError::NotSent(format!("{host} is asked for metadata only: nothing else goes there"))),
    })
}

/// A refused endpoint is printed: a password that was written into it is not.
fn hide_user(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_string(),
    }
}

/// The real network, through reqwest and rustls. Redirects are answers here, nothing is repeated, and what goes over
/// the wire is what was signed or nothing. System proxies (`HTTPS_PROXY`, `NO_PROXY`) are honoured for https beyond
/// this machine, never for loopback.
pub struct Network {
    plain: reqwest::Client,
    // Made when first needed: reqwest's TLS client needs the system's CA certificates (reqwest #2988), and a machine
    // that only speaks to a simulator may have none.
    secure: OnceLock<Result<reqwest::Client, String>>,
    secure_loopback: OnceLock<Result<reqwest::Client, String>>,
    // Whom https trusts instead of the system's authorities.
    authorities: Option<Vec<reqwest::Certificate>>,
    times: Times,
}

/// Why there is no door to the network.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made: {0}")]
pub struct NetworkError(String);

impl Network {
    /// A door to the network. It needs no CA certificates until the first https request.
    pub fn new() -> Result<Self, NetworkError> {
        Self::within(Times { connect: CONNECT_MAX, request: REQUEST_MAX })
    }

    /// The same for a service beside this machine, a cloud's metadata: a question to it takes 2 s at most.
    pub fn beside() -> Result<Self, NetworkError> {
        Self::within(BESIDE)
    }

    fn within(times: Times) -> Result<Self, NetworkError> {
        let plain =
            builder(times).no_proxy().tls_certs_only([]).build().map_err(|error| NetworkError(chain(&error)))?;
        Ok(Self { plain, secure: OnceLock::new(), secure_loopback: OnceLock::new(), authorities: None, times })
    }

    /// The same, where https trusts these certificates (PEM, one or more) and no others.
    pub fn trusting(pem: &[u8]) -> Result<Self, NetworkError> {
        let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| NetworkError(chain(&error)))?;
        if authorities.is_empty() {
            return Err(NetworkError("there is no certificate in it".to_string()));
        }
        Ok(Self { authorities: Some(authorities), ..Self::new()? })
    }

    fn client(&self, origin: &Origin) -> Result<&reqwest::Client, TransportError> {
        let (cell, make): (_, fn(Times) -> reqwest::ClientBuilder) = match (origin.scheme, origin.loopback) {
            ("http", _) => return Ok(&self.plain),
            (_, true) => (&self.secure_loopback, |times| builder(times).no_proxy()),
            (_, false) => (&self.secure, builder),
        };
        let make = || match &self.authorities {
            Some(authorities) => make(self.times).tls_certs_only(authorities.iter().cloned()),
            None => make(self.times),
        };
        cell.get_or_init(|| make().https_only(true).build().map_err(|error| chain(&error))).as_ref().map_err(
            |problem| TransportError::NotSent(format!("no TLS client (is ca-certificates installed?): {problem}")),
        )
    }
}

fn builder(times: Times) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(times.connect)
        .timeout(times.request)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // With HTTP/1.1 the host header goes out as signed, and a lost connection concerns one request only.
        .http1_only()
        .referer(false)
}

/// The URL of a request, if the parser leaves every signed byte as it is.
fn url_of(request: &Request) -> Result<(Origin, reqwest::Url), TransportError> {
    let refuse = |problem: String| TransportError::NotSent(problem);
    let origin = match metadata(request) {
        Some(origin) => origin?,
        None => Origin::parse(&request.origin).map_err(|error| refuse(error.to_string()))?,
    };
    let mut text = format!("{origin}{}", request.path);
    if !request.query.is_empty() {
        text = format!("{text}?{}", request.query);
    }
    let url = reqwest::Url::parse(&text).map_err(|error| refuse(format!("no URL: {error}")))?;
    if url.path() != request.path || url.query().unwrap_or_default() != request.query || url.fragment().is_some() {
        return Err(refuse("the path or query would be rewritten on its way and its signature broken".to_string()));
    }
    let hosts: Vec<&str> =
        request.headers.iter().filter(|(name, _)| name == "host").map(|(_, value)| value.as_str()).collect();
    if hosts != [origin.authority()] {
        return Err(refuse(format!("the host header is {hosts:?} and not {:?}", origin.authority())));
    }
    Ok((origin, url))
}

#[async_trait]
impl Transport for Network {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let refuse = |problem: &str| TransportError::NotSent(problem.to_string());
        let (origin, url) = url_of(request)?;
        let method = reqwest::Method::from_bytes(request.method.as_bytes()).map_err(|_| refuse("no HTTP method"))?;
        let mut call = self.client(&origin)?.request(method, url);
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse("no header name"))?;
            let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refuse("no header value"))?;
            value.set_sensitive(true);
            call = call.header(name, value);
        }
        // An empty POST or PUT says `content-length: 0` (some gateways ask 411 without); a GET says nothing.
        let told = request.headers.iter().any(|(name, _)| name == "content-length");
        if !request.body.is_empty() {
            call = call.body(request.body.clone());
        } else if matches!(request.method, "POST" | "PUT") && !told {
            call = call.header(reqwest::header::CONTENT_LENGTH, "0");
        }
        let mut answer = call.send().await.map_err(unsent)?;
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let status = answer.status().as_u16();
        if answer.content_length().is_some_and(|length| length > BODY_MAX as u64) {
            return Err(TransportError::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| TransportError::NoAnswer(chain(&error)))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(TransportError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body })
    }
}

/// Whether the request surely never left: it was not built, the name was not resolved, or nobody was connected to.
fn unsent(error: reqwest::Error) -> TransportError {
    if error.is_builder() || error.is_dns() || error.is_connect() {
        TransportError::NotSent(chain(&error.without_url()))
    } else {
        TransportError::NoAnswer(chain(&error.without_url()))
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
