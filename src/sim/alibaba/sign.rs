//! Verification of ACS3-HMAC-SHA256 (FACTS 4.3), read from the page apart from the client's signer.
//! It must never share a line with `provider` and never say in a refusal what the right signature would have been.

use jiff::{SignedDuration, Timestamp};

use super::error::{Refused, refused};
use crate::net::Request;
use crate::sim::canon::{Credential, encode, hmac_hex, pairs, sha256_hex};

/// How far `x-acs-date` may be from the cloud's clock (FACTS 4.3: 15 minutes).
pub(crate) const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// The API version that every ECS request names.
pub(crate) const VERSION: &str = "2014-05-26";

/// What the client claims in `Authorization`.
struct Claim<'a> {
    access_key_id: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

/// Refuses a request as the ECS gateway would: form, credential, clock, signature, token, in this order.
/// The answer is the nonce: whether it was used before is for the caller to find out, who keeps the nonces.
pub(crate) fn verify(request: &Request, credential: &Credential<'_>, now: Timestamp) -> Result<String, Refused> {
    let claim = claim(request)?;
    for name in ["host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"]
    {
        if header(request, name).is_none_or(|value| value.is_empty()) {
            return Err(refused("MissingParameter", format!("The header {name} is mandatory.")));
        }
    }
    // Each header that carries meaning must be under the signature: host, content-type and everything x-acs-*.
    for (name, _) in &request.headers {
        let bound = name == "host" || name == "content-type" || name.starts_with("x-acs-");
        if bound && !claim.signed.contains(&name.as_str()) {
            return Err(refused("IncompleteSignature", format!("The header {name} is not signed.")));
        }
    }
    if claim.access_key_id != credential.access_key_id {
        return Err(refused("InvalidAccessKeyId.NotFound", "Specified access key is not found."));
    }
    let date = header(request, "x-acs-date").and_then(|text| read_date(&text));
    if date.is_none_or(|date| now.duration_since(date).abs() > WINDOW) {
        return Err(refused("InvalidTimeStamp.Expired", "Specified time stamp or date value is expired."));
    }
    let hash = sha256_hex(&request.body);
    if header(request, "x-acs-content-sha256").as_deref() != Some(hash.as_str()) {
        return Err(refused("SignatureDoesNotMatch", "x-acs-content-sha256 is not the hash of the body."));
    }
    let canonical = canonical_request(request, &claim.signed, &hash)?;
    if hmac_hex(credential.access_key_secret.as_bytes(), &string_to_sign(&canonical)) != claim.signature {
        return Err(refused(
            "SignatureDoesNotMatch",
            "Specified signature is not matched with our calculation. Please check your implementation.",
        ));
    }
    if header(request, "x-acs-security-token").as_deref() != credential.security_token {
        return Err(refused("InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed."));
    }
    if header(request, "x-acs-version").as_deref() != Some(VERSION) {
        return Err(refused("NoSuchVersion", "Specified version does not exist."));
    }
    Ok(header(request, "x-acs-signature-nonce").unwrap_or_default())
}

/// A header's trimmed value; values of a repeated name are sorted and joined with `,`.
pub(crate) fn header(request: &Request, name: &str) -> Option<String> {
    let mut values: Vec<&str> =
        request.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.trim()).collect();
    values.sort_unstable();
    (!values.is_empty()).then(|| values.join(","))
}

/// Reads `YYYY-MM-DDTHH:MM:SSZ` and nothing else: other forms of ISO 8601 are not in the page.
fn read_date(text: &str) -> Option<Timestamp> {
    (text.len() == 20 && text.ends_with('Z')).then(|| text.parse().ok()).flatten()
}

/// Reads `ACS3-HMAC-SHA256 Credential=<ak>,SignedHeaders=<a;b>,Signature=<hex>`: commas without spaces, the names in
/// lower case, sorted, each once.
fn claim(request: &Request) -> Result<Claim<'_>, Refused> {
    let refuse = |why: &str| refused("IncompleteSignature", format!("Authorization: {why}."));
    let mut given = request.headers.iter().filter(|(name, _)| name == "authorization");
    let (_, value) = given.next().ok_or_else(|| refuse("missing"))?;
    if given.next().is_some() {
        return Err(refuse("sent twice"));
    }
    let rest = value.strip_prefix("ACS3-HMAC-SHA256 ").ok_or_else(|| refuse("not ACS3-HMAC-SHA256"))?;
    let mut parts = rest.split(',');
    let mut part = |name: &str| {
        let value = parts.next().and_then(|part| part.strip_prefix(name)).filter(|value| !value.is_empty());
        value.ok_or_else(|| refuse(&format!("{name} expected")))
    };
    let access_key_id = part("Credential=")?;
    let signed: Vec<&str> = part("SignedHeaders=")?.split(';').collect();
    let signature = part("Signature=")?;
    if parts.next().is_some() {
        return Err(refuse("more than three parts"));
    }
    if !signed.is_sorted_by(|a, b| a < b) || signed.iter().any(|name| name.to_ascii_lowercase() != **name) {
        return Err(refuse("SignedHeaders must be sorted lower-case names"));
    }
    Ok(Claim { access_key_id, signed, signature })
}

/// Steps 2 to 4 of FACTS 4.3.
fn canonical_request(request: &Request, signed: &[&str], hash: &str) -> Result<String, Refused> {
    let query =
        canonical_query(&request.query).ok_or_else(|| refused("InvalidParameter", "The query is not UTF-8."))?;
    let mut headers = String::new();
    for name in signed {
        let value = header(request, name)
            .ok_or_else(|| refused("IncompleteSignature", format!("The signed header {name} was not sent.")))?;
        headers.push_str(&format!("{name}:{value}\n"));
    }
    Ok([request.method, &request.path, &query, &headers, &signed.join(";"), hash].join("\n"))
}

/// Parameters sorted by name, encoded, an empty value written `name=`.
fn canonical_query(query: &str) -> Option<String> {
    let mut pairs = pairs(query)?;
    pairs.sort();
    let encoded: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    Some(encoded.join("&"))
}

/// Step 5 of FACTS 4.3.
fn string_to_sign(canonical: &str) -> String {
    format!("ACS3-HMAC-SHA256\n{}", sha256_hex(canonical.as_bytes()))
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;

/// The other side, for the tests of this face: made of the same parts, which the vendor's vectors hold.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Dates and signs a request that bears everything else, all of its headers signed.
    pub(crate) fn sign_with(request: &mut Request, credential: &Credential<'_>, at: Timestamp) {
        let hash = sha256_hex(&request.body);
        request.headers.retain(|(name, _)| name != "x-acs-date" && name != "x-acs-content-sha256");
        request.headers.push(("x-acs-date".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        request.headers.push(("x-acs-content-sha256".into(), hash.clone()));
        let mut signed: Vec<String> = request.headers.iter().map(|(name, _)| name.clone()).collect();
        signed.sort();
        let names: Vec<&str> = signed.iter().map(String::as_str).collect();
        let canonical = canonical_request(request, &names, &hash).unwrap();
        let signature = hmac_hex(credential.access_key_secret.as_bytes(), &string_to_sign(&canonical));
        let (id, list) = (credential.access_key_id, names.join(";"));
        let value = format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={list},Signature={signature}");
        request.headers.push(("authorization".into(), value));
    }
}
