//! Makes RSA key pairs: the one kind that all four clouds import. The numbers come from aws-lc-rs, the OpenSSH form from
//! ssh-key. It must never leave a private number in memory that is not wiped when it is dropped.

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use ssh_key::private::{KeypairData, RsaKeypair, RsaPrivateKey};
use ssh_key::{LineEnding, Mpint};

use crate::model::{KeyError, PrivateKey};

/// Why no key was made. It never holds a byte of one.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// A size that is not made.
    #[error("RSA keys of {0} bits are not made: 2048, 3072 or 4096")]
    Size(u16),
    /// A comment that would not stay on one line.
    #[error("a key's comment is one line of printable text")]
    Comment,
    /// The cryptographic library failed, for want of randomness or memory.
    #[error("the cryptographic library made no key")]
    Failed,
    /// What it made could not be brought into OpenSSH form.
    #[error("the new key cannot be written as an OpenSSH file")]
    Form,
    /// The OpenSSH form does not read back.
    #[error("the new key does not read back: {0}")]
    ReadBack(#[from] KeyError),
    /// A simulation asked for more keys than its pool was made for.
    #[error("the pool of {0} keys is used up: give this simulation a larger one")]
    PoolUsedUp(usize),
}

/// Makes an RSA key pair of 2048, 3072 or 4096 bits, in OpenSSH form with LF line ends. It computes for long
/// (medians 0.07, 0.2 and 0.5 s, at times four times as much) and blocks: async callers go through [`KeyMaker`].
pub fn generate(bits: u16, comment: &str) -> Result<PrivateKey, KeygenError> {
    let size = size_of(bits)?;
    check_comment(comment)?;
    let pair = KeyPair::generate(size).map_err(|_| KeygenError::Failed)?;
    // The buffer wipes itself; the parts below borrow from it.
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| KeygenError::Failed)?;
    let info = pkcs8::PrivateKeyInfoRef::try_from(der.as_ref()).map_err(|_| KeygenError::Form)?;
    let parts = pkcs1::RsaPrivateKey::try_from(info.private_key.as_bytes()).map_err(|_| KeygenError::Form)?;
    let number = |part: pkcs1::UintRef<'_>| Mpint::from_positive_bytes(part.as_bytes());
    let form = |_: ssh_key::Error| KeygenError::Form;
    let public = ssh_key::public::RsaPublicKey::new(number(parts.public_exponent), number(parts.modulus));
    // Wipes its numbers when dropped, as do all that hold it.
    let private = RsaPrivateKey::new(
        number(parts.private_exponent),
        number(parts.coefficient),
        number(parts.prime1),
        number(parts.prime2),
    );
    let pair = RsaKeypair::new(public.map_err(form)?, private.map_err(form)?).map_err(form)?;
    let key = ssh_key::PrivateKey::new(KeypairData::Rsa(pair), comment).map_err(form)?;
    Ok(PrivateKey::parse(key.to_openssh(LineEnding::LF).map_err(form)?)?)
}

/// The sizes that are made; each cloud's `Limits` may allow fewer.
fn size_of(bits: u16) -> Result<KeySize, KeygenError> {
    match bits {
        2048 => Ok(KeySize::Rsa2048),
        3072 => Ok(KeySize::Rsa3072),
        4096 => Ok(KeySize::Rsa4096),
        _ => Err(KeygenError::Size(bits)),
    }
}

fn check_comment(comment: &str) -> Result<(), KeygenError> {
    if comment.chars().any(char::is_control) { Err(KeygenError::Comment) } else { Ok(()) }
}

/// What any maker refuses, so that a simulation refuses what the real one would.
pub(super) fn check(bits: u16, comment: &str) -> Result<(), KeygenError> {
    size_of(bits)?;
    check_comment(comment)
}

/// Makes the key pairs of rotations. Every key that one maker hands out is different.
#[async_trait]
pub trait KeyMaker: Send + Sync {
    /// A new key pair of 2048, 3072 or 4096 bits, else [`KeygenError::Size`].
    async fn make(&self, bits: u16, comment: &str) -> Result<PrivateKey, KeygenError>;
}

/// Makes real keys, on tokio's blocking threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct RsaKeyMaker;

#[async_trait]
impl KeyMaker for RsaKeyMaker {
    async fn make(&self, bits: u16, comment: &str) -> Result<PrivateKey, KeygenError> {
        let comment = comment.to_string();
        tokio::task::spawn_blocking(move || generate(bits, &comment)).await.map_err(|_| KeygenError::Failed)?
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;
    use crate::model::PublicKey;

    /// What OpenSSH says of a key file, and of its size.
    fn ssh_keygen(key: &PrivateKey) -> (PublicKey, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(key.expose().as_bytes()).unwrap();
        let run = |flag: &str| {
            let told = Command::new("ssh-keygen").arg(flag).arg("-f").arg(file.path()).output().unwrap();
            assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
            String::from_utf8(told.stdout).unwrap()
        };
        (PublicKey::parse(&run("-y")).unwrap(), run("-l"))
    }

    #[tokio::test]
    async fn each_size_reads_back_and_openssh_agrees() {
        for bits in [2048, 3072, 4096] {
            let key = RsaKeyMaker.make(bits, "rka7f3_x").await.unwrap();
            let (public, listed) = ssh_keygen(&key);
            assert_eq!(public, *key.public());
            let fingerprint = key.public().fingerprint();
            assert_eq!(listed.trim_end(), format!("{bits} {fingerprint} rka7f3_x (RSA)"));
            let again = PrivateKey::parse(zeroize::Zeroizing::new(key.expose().to_string())).unwrap();
            assert_eq!(again.public(), key.public());
            assert!(key.public().to_openssh().starts_with("ssh-rsa AAAA"));
            assert!(key.expose().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
            assert!(key.expose().ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
            assert!(!key.expose().contains('\r'));
        }
    }

    #[test]
    fn openssh_signs_with_a_new_key_and_the_signature_holds() {
        let key = generate(2048, "signer").unwrap();
        let room = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = room.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        let (file, text) = (write("key", key.expose()), write("text", "a text"));
        let signers = write("signers", &format!("us {}\n", key.public().to_openssh()));
        let signed = Command::new("ssh-keygen").args(["-Y", "sign", "-n", "test", "-f"]).args([&file, &text]).output();
        assert!(signed.unwrap().status.success());
        let holds = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", "test", "-I", "us", "-f"])
            .arg(&signers)
            .arg("-s")
            .arg(room.path().join("text.sig"))
            .stdin(std::fs::File::open(&text).unwrap())
            .output()
            .unwrap();
        assert!(holds.status.success(), "{}", String::from_utf8_lossy(&holds.stderr));
    }

    #[tokio::test]
    async fn two_keys_differ() {
        let (one, two) = (generate(2048, "").unwrap(), RsaKeyMaker.make(2048, "").await.unwrap());
        assert_ne!(one.public(), two.public());
    }

    #[tokio::test]
    async fn other_sizes_and_comments_of_two_lines_are_refused() {
        for bits in [0, 1024, 2047, 2049, 8192, u16::MAX] {
            assert!(matches!(generate(bits, ""), Err(KeygenError::Size(told)) if told == bits));
            assert!(matches!(RsaKeyMaker.make(bits, "").await, Err(KeygenError::Size(_))));
        }
        assert!(matches!(generate(2048, "a\nb"), Err(KeygenError::Comment)));
    }
}
