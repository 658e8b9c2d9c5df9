//! Host keys of simulated guests: an Ed25519 and an ECDSA key for each guest and each image that it was made from, in
//! OpenSSH's own file format. They are made from the seed, so that the same world shows the same keys; whoever knows the
//! seed knows them too. They must never guard anything but a simulated guest on loopback.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// A kind of host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ed25519,
    Ecdsa,
}

impl Kind {
    /// What each guest has.
    pub(super) const ALL: [Self; 2] = [Self::Ed25519, Self::Ecdsa];

    /// How it is called in files' names.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
        }
    }
}

/// The file that sshd reads: the key of this guest (`instance`) since it has had this image. `None` only if the
/// cryptographic library refuses the number, which it does for one in 2^32 at most.
pub(super) fn file(kind: Kind, seed: u64, instance: &str, image: u32) -> Option<String> {
    let chance = |what: &str| Sha256::digest(format!("{what} {seed} {image} {instance}"));
    let secret = chance(kind.as_str());
    let (public, private) = match kind {
        Kind::Ed25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&secret).ok()?;
            let point = pair.public_key().as_ref();
            let both = [secret.as_slice(), point].concat();
            (fields(&[b"ssh-ed25519", point]), fields(&[b"ssh-ed25519", point, &both]))
        }
        Kind::Ecdsa => {
            // RFC 5915: version 1, the number, the curve's name.
            let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
            let der = [&[0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20], secret.as_slice(), &curve].concat();
            let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).ok()?;
            let point = pair.public_key().as_ref();
            let names: [&[u8]; 2] = [b"ecdsa-sha2-nistp256", b"nistp256"];
            (fields(&[names[0], names[1], point]), fields(&[names[0], names[1], point, &positive(&secret)]))
        }
    };
    // PROTOCOL.key of OpenSSH: no cipher, one key, and a number twice that tells a right passphrase from a wrong one.
    let check = &chance("check")[..4];
    let mut inner = [check, check, &private, &fields(&[instance.as_bytes()])].concat();
    inner.extend((1..=u8::MAX).take((8 - inner.len() % 8) % 8));
    let mut whole = b"openssh-key-v1\0".to_vec();
    whole.extend(fields(&[b"none", b"none", b""]));
    whole.extend(1u32.to_be_bytes());
    whole.extend(fields(&[&public, &inner]));
    let text = STANDARD.encode(whole);
    let lines: Vec<&str> = (0..text.len()).step_by(70).filter_map(|at| text.get(at..text.len().min(at + 70))).collect();
    Some(format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n")))
}

/// Fields of an SSH wire text, each behind its length.
fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let length = |field: &[u8]| u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes();
    fields.iter().flat_map(|field| length(field).into_iter().chain(field.iter().copied())).collect()
}

/// A number as SSH writes it: without idle zeros, and with one where it would look negative.
fn positive(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|digit| *digit == 0).collect();
    let sign = digits.first().is_some_and(|first| *first >= 0x80);
    std::iter::repeat_n(0, usize::from(sign)).chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn openssh_reads_each_key_and_finds_the_kind_that_it_should_be() {
        let room = tempfile::tempdir().unwrap();
        let mut seen = BTreeSet::new();
        for kind in Kind::ALL {
            for number in 0..20 {
                let path = room.path().join(format!("{}-{number}", kind.as_str()));
                std::fs::write(&path, file(kind, 7, &format!("i-{number}"), 0).unwrap()).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                let told = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().unwrap();
                let line = String::from_utf8(told.stdout).unwrap();
                let name = if kind == Kind::Ed25519 { "ssh-ed25519 " } else { "ecdsa-sha2-nistp256 " };
                assert!(line.starts_with(name) && line.ends_with(&format!(" i-{number}\n")), "{line}{:?}", told.stderr);
                seen.insert(line);
            }
        }
        assert_eq!(seen.len(), 40, "each guest has keys of its own");
    }

    #[test]
    fn seed_guest_and_image_make_the_key_and_nothing_else_does() {
        for kind in Kind::ALL {
            let key = |seed, instance: &str, image| file(kind, seed, instance, image).unwrap();
            assert_eq!(key(1, "i-1", 0), key(1, "i-1", 0));
            let keys = [key(1, "i-1", 0), key(2, "i-1", 0), key(1, "i-2", 0), key(1, "i-1", 1)];
            assert_eq!(BTreeSet::from(keys).len(), 4);
        }
    }

    #[test]
    fn numbers_are_written_without_idle_zeros_and_never_negative() {
        let check = |number: &[u8], expect: &[u8]| assert_eq!(positive(number), expect);
        check(&[0, 0, 5], &[5]);
        check(&[0x80], &[0, 0x80]);
        check(&[0, 0xff, 0], &[0, 0xff, 0]);
    }
}
