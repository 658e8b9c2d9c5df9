//! Verification of bce-auth-v1 (FACTS 5.2), read from the page apart from the client's signer.
//! It must never share a line with `provider` and never say in a refusal what the right signature would have been.

use jiff::{SignedDuration, Timestamp};

use super::error::{Refused, refused};
use crate::net::Request;
use crate::sim::canon::{Credential, decode, encode, hmac_hex, pairs};

/// How far a request's time may lie ahead of the cloud's clock. The page names no tolerance (FACTS 5.2, unconfirmed):
/// five minutes, so that a client whose clock runs ahead is found out.
pub(crate) const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// What the client claims in `Authorization`.
struct Claim<'a> {
    /// `bce-auth-v1/<ak>/<time>/<expiration>`: what the signing key is derived from.
    prefix: &'a str,
    access_key_id: &'a str,
    at: Timestamp,
    expiration: SignedDuration,
    /// Empty: the default set.
    signed: Vec<&'a str>,
    signature: &'a str,
}

/// Refuses a request as the BCC gateway would: form, credential, clock, signature, token, in this order.
/// The algorithm has no nonce: a request may be repeated until it expires.
pub(crate) fn verify(request: &Request, credential: &Credential<'_>, now: Timestamp) -> Result<(), Refused> {
    let claim = claim(request)?;
    if claim.access_key_id != credential.access_key_id {
        return Err(refused("InvalidAccessKeyId", "The Access Key ID you provided does not exist in our records."));
    }
    if now.duration_since(claim.at) > claim.expiration || claim.at.duration_since(now) > AHEAD {
        return Err(refused("RequestExpired", "Request has expired."));
    }
    let mismatch =
        |why: &str| refused("SignatureDoesNotMatch", format!("The request signature does not match: {why}."));
    let covered = covered(request, &claim);
    if !covered.contains(&"host") {
        return Err(mismatch("host must be signed"));
    }
    if let Some((name, _)) = request.headers.iter().find(|(name, _)| unsigned_bce(name, &covered)) {
        return Err(mismatch(&format!("{name} must be signed")));
    }
    let canonical = canonical_request(request, &covered).ok_or_else(|| refused("InvalidURI", "Not UTF-8."))?;
    let signing_key = hmac_hex(credential.access_key_secret.as_bytes(), claim.prefix);
    if hmac_hex(signing_key.as_bytes(), &canonical) != claim.signature {
        return Err(mismatch("check the secret key and the canonical request"));
    }
    let token = request.headers.iter().find(|(name, _)| name == "x-bce-security-token").map(|(_, value)| value.trim());
    if token != credential.security_token {
        return Err(refused("AccessDenied", "The security token is missing or not the one of this access key."));
    }
    Ok(())
}

fn unsigned_bce(name: &str, covered: &[&str]) -> bool {
    name.starts_with("x-bce-") && !covered.contains(&name)
}

/// Reads `bce-auth-v1/<ak>/<YYYY-MM-DDThh:mm:ssZ>/<seconds>/<signed;headers>/<hex>`.
fn claim(request: &Request) -> Result<Claim<'_>, Refused> {
    let refuse = |why: &str| refused("InvalidHTTPAuthHeader", format!("Authorization: {why}."));
    let mut given = request.headers.iter().filter(|(name, _)| name == "authorization");
    let Some((_, value)) = given.next() else { return Err(refused("AccessDenied", "Access denied: not signed.")) };
    if given.next().is_some() {
        return Err(refuse("sent twice"));
    }
    let parts: Vec<&str> = value.split('/').collect();
    let [version, access_key_id, time, seconds, list, signature] = parts[..] else {
        return Err(refuse("six parts expected"));
    };
    if version != "bce-auth-v1" {
        return Err(refuse("not bce-auth-v1"));
    }
    let at = (time.len() == 20 && time.ends_with('Z')).then(|| time.parse().ok()).flatten();
    let at = at.ok_or_else(|| refuse("the time is not YYYY-MM-DDThh:mm:ssZ"))?;
    let expiration = seconds.parse::<u32>().ok().filter(|seconds| *seconds > 0);
    let expiration = expiration.ok_or_else(|| refuse("the expiration is not a positive number of seconds"))?;
    let signed: Vec<&str> = list.split(';').filter(|name| !name.is_empty()).collect();
    if !signed.is_sorted_by(|a, b| a < b) || signed.iter().any(|name| name.to_ascii_lowercase() != **name) {
        return Err(refuse("the signed headers must be sorted lower-case names"));
    }
    let prefix = &value[..value.len() - list.len() - signature.len() - 2];
    let expiration = SignedDuration::from_secs(i64::from(expiration));
    Ok(Claim { prefix, access_key_id, at, expiration, signed, signature })
}

/// The headers under the signature: the named ones, or the default set of those that were sent.
fn covered<'a>(request: &'a Request, claim: &Claim<'a>) -> Vec<&'a str> {
    if !claim.signed.is_empty() {
        return claim.signed.clone();
    }
    let default = |name: &str| {
        ["host", "content-length", "content-type", "content-md5"].contains(&name) || name.starts_with("x-bce-")
    };
    request.headers.iter().map(|(name, _)| name.as_str()).filter(|name| default(name)).collect()
}

/// Steps 3 to 5 of FACTS 5.2. None if the path or the query is not UTF-8.
fn canonical_request(request: &Request, covered: &[&str]) -> Option<String> {
    let segments: Option<Vec<String>> = request.path.split('/').map(|part| Some(encode(&path_part(part)?))).collect();
    let mut query: Vec<String> = pairs(&request.query)?
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"))
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    query.sort();
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .filter(|(name, value)| covered.contains(&name.as_str()) && !value.trim().is_empty())
        .map(|(name, value)| format!("{}:{}", encode(name), encode(value.trim())))
        .collect();
    headers.sort();
    Some([request.method, &segments?.join("/"), &query.join("&"), &headers.join("\n")].join("\n"))
}

/// Undoes the encoding of a piece of the path, where a `+` is a plus.
pub(crate) fn path_part(part: &str) -> Option<String> {
    decode(&part.replace('+', "%2B"))
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;

/// The other side, for the tests of this face: made of the same parts, which the vendor's vectors hold.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Signs `host` and every `x-bce-*` header, for 1800 seconds.
    pub(crate) fn sign_with(request: &mut Request, credential: &Credential<'_>, at: Timestamp) {
        let mut signed: Vec<String> = request.headers.iter().map(|(name, _)| name.clone()).collect();
        signed.retain(|name| name == "host" || name.starts_with("x-bce-"));
        signed.sort();
        let names: Vec<&str> = signed.iter().map(String::as_str).collect();
        let time = at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let prefix = format!("bce-auth-v1/{}/{time}/1800", credential.access_key_id);
        let signing_key = hmac_hex(credential.access_key_secret.as_bytes(), &prefix);
        let signature = hmac_hex(signing_key.as_bytes(), &canonical_request(request, &names).unwrap());
        request.headers.push(("authorization".into(), format!("{prefix}/{}/{signature}", names.join(";"))));
    }
}
