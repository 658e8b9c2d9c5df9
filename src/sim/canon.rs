//! The few text rules that ACS3 and bce-auth-v1 have in common, as a server reads them: percent-encoding, query pairs,
//! digests. It must never be used by a client: `provider` has its own reading of the same pages.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::cloud::Cloud;

/// The account's credential, as the cloud knows it.
#[derive(Clone, Copy)]
pub(crate) struct Credential<'a> {
    /// What the request names.
    pub(crate) access_key_id: &'a str,
    /// What the signature is made with.
    pub(crate) access_key_secret: &'a str,
    /// Set for a temporary credential: then the token must be sent, signed and equal.
    pub(crate) security_token: Option<&'a str>,
}

impl<'a> Credential<'a> {
    /// The credential of a cloud's account.
    pub(crate) fn of(cloud: &'a Cloud) -> Self {
        Self {
            access_key_id: &cloud.access_key_id,
            access_key_secret: &cloud.access_key_secret,
            security_token: cloud.session_token.as_deref(),
        }
    }
}

/// Everything but `A-Za-z0-9-_.~` is encoded (FACTS 4.3 step 2, 5.2 traps).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// RFC 3986 percent-encoding of a name or a value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Undoes percent-encoding. A `+` is a space, as servers of query strings and forms read it: a client that forgets to
/// encode the `+` of a base-64 key is found out by its signature.
pub(crate) fn decode(text: &str) -> Option<String> {
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

/// The name and value pairs of a query or form, decoded, in the order sent. None if it is not UTF-8.
pub(crate) fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Lower-case hex of the SHA-256 digest.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Lower-case hex of HMAC-SHA256.
pub(crate) fn hmac_hex(key: &[u8], message: &str) -> String {
    // A key of any length is taken; the error type exists for other MACs.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_leaves_only_the_unreserved_alone() {
        for (text, expect) in [
            ("aZ09-_.~", "aZ09-_.~"),
            ("a b*c", "a%20b%2Ac"),
            ("ssh-rsa AAAA+/=", "ssh-rsa%20AAAA%2B%2F%3D"),
            ("密", "%E5%AF%86"),
        ] {
            assert_eq!(encode(text), expect);
            assert_eq!(decode(expect).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_query_is_read_as_a_server_reads_it() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        for (query, expect) in [
            ("", Some(vec![])),
            ("attach", Some(vec![pair("attach", "")])),
            ("attach=&x=1%2C2", Some(vec![pair("attach", ""), pair("x", "1,2")])),
            ("key=a+b%2Bc=", Some(vec![pair("key", "a b+c=")])),
            ("bad=%FF", None),
        ] {
            assert_eq!(pairs(query), expect, "{query}");
        }
    }
}
