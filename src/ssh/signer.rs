//! Signs a login with a key read from its OpenSSH file: RSA by aws-lc-rs, with SHA-512 or SHA-256 only. It must never
//! sign with SHA-1, nor leave a number of a private key in memory that is not wiped.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding};
use crypto_bigint::{BoxedUint, NonZero};
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use ssh_key::encoding::Encode;
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::{HashAlg, Mpint};
use zeroize::{Zeroize, Zeroizing};

use crate::model::PrivateKey;

/// Why nothing is signed. It never holds a byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignError {
    #[error("the private key does not read as an OpenSSH file")]
    Unreadable,
    #[error("the private key's numbers do not belong together")]
    Numbers,
    #[error("the private key is RSA of a size that is not signed with: 2048 to 8192 bits")]
    Size,
    #[error("SHA-1 signatures are not made")]
    Sha1,
    #[error("the cryptographic library made no signature")]
    Failed,
    /// No private half at hand: the server was only asked.
    #[error("only the public key was offered")]
    OnlyOffered,
    #[error("the connection ended")]
    Ended,
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Ended
    }
}

/// A private key, ready to sign.
pub(super) enum SigningKey {
    /// Checked when it was loaded: its numbers belong together.
    Rsa(KeyPair),
    /// Ed25519 or ECDSA: not made here, but adopted.
    Other(Box<ssh_key::PrivateKey>),
}

impl SigningKey {
    /// Reads the key's file. RSA takes about half a millisecond.
    pub(super) fn read(key: &PrivateKey) -> Result<Self, SignError> {
        let parsed = ssh_key::PrivateKey::from_openssh(key.expose()).map_err(|_| SignError::Unreadable)?;
        match parsed.key_data() {
            KeypairData::Rsa(pair) => rsa(pair).map(Self::Rsa),
            _ => Ok(Self::Other(Box::new(parsed))),
        }
    }

    /// The signature as SSH sends it: a name and the bytes, each with its length before it. `hash` is for RSA only.
    fn sign(&self, hash: Option<HashAlg>, data: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut out = Vec::new();
        match self {
            Self::Other(key) => {
                let signature = key.try_sign(data).map_err(|_| SignError::Failed)?;
                signature.encode(&mut out).map_err(|_| SignError::Failed)?;
            }
            Self::Rsa(pair) => {
                let (name, encoding): (_, &'static dyn RsaEncoding) = match hash {
                    Some(HashAlg::Sha512) => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    Some(HashAlg::Sha256) => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return Err(SignError::Sha1),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), data, &mut signature).map_err(|_| SignError::Failed)?;
                name.encode(&mut out).map_err(|_| SignError::Failed)?;
                signature.as_slice().encode(&mut out).map_err(|_| SignError::Failed)?;
            }
        }
        Ok(out)
    }
}

/// What russh asks for a signature, which it does only once the server has said that it would take the key.
pub(super) struct Pen<'a> {
    /// None: only to see whether the server would take it.
    pub(super) key: Option<&'a SigningKey>,
    /// Whether the server has said so.
    pub(super) asked: bool,
}

impl russh::Signer for Pen<'_> {
    type Error = SignError;

    /// The bytes to sign, followed by the signature as one string.
    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        self.asked = true;
        let signature = self.key.ok_or(SignError::OnlyOffered)?.sign(hash, &data)?;
        signature.as_slice().encode(&mut data).map_err(|_| SignError::Failed)?;
        Ok(data)
    }
}

/// Loads the pair into aws-lc-rs, which checks that its numbers belong together.
fn rsa(pair: &RsaKeypair) -> Result<KeyPair, SignError> {
    let number = |part| Mpint::as_positive_bytes(part).ok_or(SignError::Numbers);
    let (public, private) = (pair.public(), pair.private());
    let (d, p, q) = (number(private.d())?, number(private.p())?, number(private.q())?);
    let n = number(public.n())?;
    if !(2048..=8192).contains(&(n.len() * 8)) {
        return Err(SignError::Size);
    }
    // An OpenSSH file has neither of the two exponents that aws-lc-rs signs with.
    let (exponent_p, exponent_q) = (exponent(d, p)?, exponent(d, q)?);
    KeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n, e: number(public.e())? },
        d,
        p,
        q,
        dP: &exponent_p,
        dQ: &exponent_q,
        qInv: number(private.iqmp())?,
    })
    .map_err(|_| SignError::Numbers)
}

/// `d mod (prime - 1)`, in time that hangs on the numbers' lengths only. Quotient, remainder and copies are wiped.
fn exponent(d: &[u8], prime: &[u8]) -> Result<Zeroizing<Box<[u8]>>, SignError> {
    let mut prime = Zeroizing::new(BoxedUint::from_be_slice_vartime(prime));
    // A prime is odd: one less is the same number without its last bit.
    let last = prime.as_mut_words().first_mut().filter(|word| **word & 1 == 1).ok_or(SignError::Numbers)?;
    *last -= 1;
    let mut modulus = Option::<NonZero<BoxedUint>>::from(NonZero::new((*prime).clone())).ok_or(SignError::Numbers)?;
    let d = Zeroizing::new(BoxedUint::from_be_slice_vartime(d));
    // In place in the two numbers that it returns: nothing else holds a part of them.
    let (mut quotient, remainder) = d.div_rem(&modulus);
    let remainder = Zeroizing::new(remainder);
    quotient.zeroize();
    modulus.zeroize();
    Ok(Zeroizing::new(remainder.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512};
    use ssh_key::LineEnding;
    use ssh_key::private::RsaPrivateKey;

    use super::*;
    use crate::ssh::generate;

    fn pair_of(key: &PrivateKey) -> RsaKeypair {
        match ssh_key::PrivateKey::from_openssh(key.expose()).unwrap().key_data() {
            KeypairData::Rsa(pair) => pair.clone(),
            _ => panic!("not RSA"),
        }
    }

    fn file_of(pair: RsaKeypair) -> PrivateKey {
        let key = ssh_key::PrivateKey::new(KeypairData::Rsa(pair), "x").unwrap();
        PrivateKey::parse(key.to_openssh(LineEnding::LF).unwrap()).unwrap()
    }

    fn uint(part: &Mpint) -> BoxedUint {
        BoxedUint::from_be_slice(part.as_positive_bytes().unwrap(), 4096).unwrap()
    }

    fn mpint(number: &BoxedUint) -> Mpint {
        Mpint::from_positive_bytes(&number.to_be_bytes())
    }

    fn check_signs(key: &PrivateKey) {
        let public = pair_of(key).public().clone();
        let part = |part: &Mpint| part.as_positive_bytes().unwrap().to_vec();
        let der = PublicKeyComponents { n: part(public.n()), e: part(public.e()) };
        let signing = SigningKey::read(key).unwrap();
        for hash in [HashAlg::Sha256, HashAlg::Sha512] {
            let told = signing.sign(Some(hash), b"a text").unwrap();
            let name = &told[4..16];
            let signature = &told[20..];
            assert_eq!(told[..4], [0, 0, 0, 12]);
            match hash {
                HashAlg::Sha256 => {
                    assert_eq!(name, b"rsa-sha2-256");
                    der.verify(&RSA_PKCS1_2048_8192_SHA256, b"a text", signature).unwrap();
                }
                _ => {
                    assert_eq!(name, b"rsa-sha2-512");
                    der.verify(&RSA_PKCS1_2048_8192_SHA512, b"a text", signature).unwrap();
                }
            }
            assert!(der.verify(&RSA_PKCS1_2048_8192_SHA512, b"another", signature).is_err());
        }
        assert!(matches!(signing.sign(None, b"a text"), Err(SignError::Sha1)));
    }

    #[test]
    fn each_size_read_from_its_file_signs_with_sha2_and_never_with_sha1() {
        for bits in [2048, 3072, 4096] {
            check_signs(&generate(bits, "x").unwrap());
        }
    }

    #[test]
    fn primes_in_either_order_and_either_private_exponent_sign() {
        let (pair, one) = (pair_of(&generate(2048, "x").unwrap()), BoxedUint::one_with_precision(4096));
        let private = pair.private();
        let (p, q) = (uint(private.p()), uint(private.q()));
        let inverse = |of: &BoxedUint, modulus: &BoxedUint| {
            let modulus = Option::<NonZero<BoxedUint>>::from(NonZero::new(modulus.clone())).unwrap();
            mpint(&Option::<BoxedUint>::from(of.rem(&modulus).invert_mod(&modulus)).unwrap())
        };
        let phi = p.wrapping_sub(&one).wrapping_mul(q.wrapping_sub(&one));
        let long = inverse(&uint(pair.public().e()), &phi);
        for d in [private.d().clone(), long] {
            for (p, q) in [(&p, &q), (&q, &p)] {
                let private = RsaPrivateKey::new(d.clone(), inverse(q, p), mpint(p), mpint(q)).unwrap();
                check_signs(&file_of(RsaKeypair::new(pair.public().clone(), private).unwrap()));
            }
        }
    }

    #[test]
    fn numbers_that_do_not_belong_together_are_refused() {
        let (one, two) = (pair_of(&generate(2048, "x").unwrap()), pair_of(&generate(2048, "x").unwrap()));
        let (a, b) = (one.private(), two.private());
        let small = Mpint::from_positive_bytes(&[2]);
        let check = |d: &Mpint, iqmp: &Mpint, p: &Mpint, q: &Mpint, why: &str| {
            let private = RsaPrivateKey::new(d.clone(), iqmp.clone(), p.clone(), q.clone()).unwrap();
            let told = rsa(&RsaKeypair::new(one.public().clone(), private).unwrap());
            assert_eq!(told.err(), Some(SignError::Numbers), "{why}");
        };
        check(b.d(), a.iqmp(), a.p(), a.q(), "another d");
        check(a.d(), a.iqmp(), b.p(), b.q(), "other primes");
        check(a.d(), b.iqmp(), a.p(), a.q(), "another coefficient");
        check(a.d(), a.iqmp(), &small, a.q(), "an even prime");
        check(a.d(), a.iqmp(), &Mpint::from_positive_bytes(&[1]), a.q(), "a prime of one");
    }

    #[test]
    fn exponents_are_remainders_whatever_the_lengths() {
        let check = |d: &[u8], prime: &[u8], expect: u64| {
            let told = exponent(d, prime).unwrap();
            let value = told.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
            assert_eq!(value, expect, "{d:?} mod {prime:?} - 1");
        };
        check(&[100], &[7], 4);
        check(&[5], &[7], 5);
        check(&[6], &[7], 0);
        check(&[1, 0, 0, 0, 0, 0, 0, 0, 0], &[7], 4); // 2^64 mod 6
        check(&[0, 0, 3], &[1, 0, 0, 0, 0, 0, 0, 0, 1], 3);
        check(&[1, 0, 0, 0, 0, 0, 0, 0, 9], &[1, 0, 0, 0, 0, 0, 0, 0, 1], 9);
        check(&[0], &[3], 0);
        for prime in [&[][..], &[0], &[1], &[4]] {
            assert!(exponent(&[9], prime).is_err(), "{prime:?}");
        }
    }

    #[test]
    fn a_key_that_is_not_rsa_signs_as_itself() {
        let text =
            ssh_key::PrivateKey::new(KeypairData::Ed25519(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32])), "x");
        let text = text.unwrap().to_openssh(LineEnding::LF).unwrap();
        let key = PrivateKey::parse(text).unwrap();
        let told = SigningKey::read(&key).unwrap().sign(None, b"a text").unwrap();
        assert_eq!(&told[..15], b"\0\0\0\x0bssh-ed25519");
        assert_eq!(told.len(), 15 + 4 + 64);
    }
}
