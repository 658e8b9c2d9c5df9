//! Key pairs as a cloud keeps them: a name and a public half. The simulator has its own reader of OpenSSH public key
//! lines; it must never see a private half, and it shares no reader with `model` or `provider`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::rng::Rng;

/// The most bytes of a public key line that are looked at.
const LINE_MAX: usize = 16 * 1024;

/// A key pair in a cloud.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The cloud's handle: an id, on Alibaba the name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The public key as the cloud shows it. The clouds put a comment of their own behind it.
    pub public_key: String,
    /// The public key without a comment: what a guest's `authorized_keys` gets, and what two pairs are compared by.
    pub line: String,
    /// Baidu's description.
    pub description: String,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// When it was made or imported.
    pub created: Timestamp,
    /// Whether a custom image names it: Tencent refuses to delete such a pair.
    pub in_image: bool,
}

/// An OpenSSH public key line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicLine {
    /// `ssh-rsa`, `ssh-dss`, `ecdsa-sha2-…`, `ssh-ed25519`.
    pub algorithm: String,
    /// The line without its comment.
    pub line: String,
    /// The key's bytes, as the base 64 part holds them.
    pub blob: Vec<u8>,
    /// The modulus' length in bits, for `ssh-rsa`; 0 for other kinds.
    pub bits: usize,
}

/// Reads one line `algorithm base64 [comment]`, and checks that the bytes say the same algorithm and are whole.
/// For `ssh-rsa` both numbers must be there and positive, and nothing may follow. `None`: malformed.
pub fn read_public_line(text: &str) -> Option<PublicLine> {
    let text = text.trim_matches([' ', '\r', '\n']);
    if text.len() > LINE_MAX || text.contains(['\n', '\r']) {
        return None;
    }
    let mut words = text.split_ascii_whitespace();
    let (algorithm, encoded) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(encoded).ok()?;
    let mut rest = blob.as_slice();
    if take(&mut rest)? != algorithm.as_bytes() {
        return None;
    }
    let mut bits = 0;
    if algorithm == "ssh-rsa" {
        let (exponent, modulus) = (positive(take(&mut rest)?)?, positive(take(&mut rest)?)?);
        if exponent < 2 || !rest.is_empty() {
            return None;
        }
        bits = modulus;
    } else if rest.is_empty() {
        return None;
    }
    Some(PublicLine { algorithm: algorithm.to_string(), line: format!("{algorithm} {encoded}"), blob, bits })
}

/// The next length-prefixed field of an SSH wire text.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (field, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(field)
}

/// How many bits a positive number in SSH's form has; `None` for 0, a negative one, or one with idle zeros before it.
fn positive(number: &[u8]) -> Option<usize> {
    match number {
        [] => None,
        [0, second, ..] if *second < 0x80 => None,
        [0] => None,
        [0, digits @ ..] => Some(digits.len() * 8),
        [first, ..] if *first >= 0x80 => None,
        [first, digits @ ..] => Some(digits.len() * 8 + 8 - first.leading_zeros() as usize),
    }
}

/// A well-formed `ssh-rsa` line of 2048 bits, whose private half nobody has: a stranger's key.
pub fn strangers_line(rng: &mut Rng) -> String {
    let mut modulus = vec![0];
    modulus.extend(rng.bytes(256));
    modulus[1] |= 0x80;
    modulus[256] |= 1;
    let mut blob = Vec::new();
    for field in [b"ssh-rsa".as_slice(), &[1, 0, 1], &modulus] {
        blob.extend((field.len() as u32).to_be_bytes());
        blob.extend(field);
    }
    format!("ssh-rsa {}", STANDARD.encode(blob))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_line_reads_back_and_its_comment_is_dropped() {
        let line = strangers_line(&mut Rng::new(3));
        let read = read_public_line(&format!("{line} root@box with words\n")).unwrap();
        assert_eq!((read.line.as_str(), read.bits, read.algorithm.as_str()), (line.as_str(), 2048, "ssh-rsa"));
        assert!(crate::model::PublicKey::parse(&line).is_ok(), "and the daemon's own reader takes it");
    }

    #[test]
    fn malformed_lines_are_no_keys() {
        let line = strangers_line(&mut Rng::new(3));
        let blob = STANDARD.decode(line.split_once(' ').unwrap().1).unwrap();
        let with = |blob: &[u8]| format!("ssh-rsa {}", STANDARD.encode(blob));
        let longer = [blob.as_slice(), &[0]].concat();
        for bad in [
            String::new(),
            "ssh-rsa".into(),
            "ssh-rsa !!!!".into(),
            "ssh-rsa AAAA".into(),
            line.replace("ssh-rsa ", "ssh-dss "),
            with(&blob[..blob.len() - 1]),
            with(&longer),
            format!("{line}\n{line}"),
            "-----BEGIN RSA PUBLIC KEY-----".into(),
        ] {
            assert_eq!(read_public_line(&bad), None, "{bad}");
        }
    }
}
