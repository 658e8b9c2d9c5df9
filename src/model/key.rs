//! SSH keys as values. A private half never prints itself, and its text is wiped when it is dropped.
//! Making keys is `ssh`'s work, keeping them `custody`'s.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Why a text is no key of ours. It never repeats the text.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not an OpenSSH public key line.
    #[error("not an OpenSSH public key: {0}")]
    Public(ssh_key::Error),
    /// Not an OpenSSH private key file, or an encrypted one. The parser's own words are not repeated: they may quote
    /// what it read.
    #[error("not a readable OpenSSH private key: {0}")]
    Private(&'static str),
}

/// The SHA-256 fingerprint of a public key, as `ssh-keygen -l` prints it: `SHA256:` and unpadded base 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key. Two are equal if their key material is: clouds rewrite the comment.
#[derive(Clone)]
pub struct PublicKey(ssh_key::PublicKey);

impl PublicKey {
    /// Reads one line of `authorized_keys` form: `ssh-rsa AAAA… comment`. A second line is an error: it would be
    /// another key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let line = text.trim();
        if line.contains(['\n', '\r']) {
            return Err(KeyError::Public(ssh_key::Error::FormatEncoding));
        }
        ssh_key::PublicKey::from_openssh(line).map(Self).map_err(KeyError::Public)
    }
    /// The line without its comment: what is imported into a cloud.
    pub fn to_openssh(&self) -> String {
        let mut bare = self.0.clone();
        bare.set_comment("");
        bare.to_openssh().map(|line| line.trim_end().to_string()).unwrap_or_default()
    }
    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.0.fingerprint(ssh_key::HashAlg::Sha256).to_string())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key_data() == other.0.key_data()
    }
}
impl Eq for PublicKey {}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}
impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_openssh())
    }
}
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A private half: the text of an unencrypted OpenSSH key file, which `ssh -i` takes as it is.
/// The memory is wiped on drop; `Debug` shows the public fingerprint only.
#[derive(Clone)]
pub struct PrivateKey {
    text: Zeroizing<String>,
    public: PublicKey,
}

impl PrivateKey {
    /// Reads an OpenSSH private key file and derives the public half from it.
    pub fn parse(text: Zeroizing<String>) -> Result<Self, KeyError> {
        let key = ssh_key::PrivateKey::from_openssh(text.as_str()).map_err(|error| {
            KeyError::Private(match error {
                ssh_key::Error::Crypto | ssh_key::Error::PublicKey => "its halves do not belong together",
                ssh_key::Error::AlgorithmUnknown | ssh_key::Error::AlgorithmUnsupported { .. } => {
                    "a kind of key that is not known here"
                }
                _ => "broken, or in another format",
            })
        })?;
        if key.is_encrypted() {
            return Err(KeyError::Private("it is encrypted with a passphrase"));
        }
        Ok(Self { public: PublicKey(key.public_key().clone()), text })
    }
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
    /// The file's text. Only custody may write it anywhere.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public.fingerprint())
    }
}

/// Wiped by its only secret field; `drop_wipes_the_text` holds the field to it.
impl zeroize::ZeroizeOnDrop for PrivateKey {}

#[cfg(test)]
impl PrivateKey {
    /// A private key file for tests that need no RSA key: the same for the same seed, made without chance or cost.
    pub(crate) fn sample(seed: u8) -> Self {
        use ssh_key::private::{Ed25519Keypair, KeypairData};
        // Halves that belong together: with its `ed25519` feature, which russh turns on, ssh-key looks.
        let pair = Ed25519Keypair::from_seed(&[seed; 32]);
        let key = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), "sample").unwrap();
        Self::parse(key.to_openssh(ssh_key::LineEnding::LF).unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_prints_only_its_public_fingerprint() {
        let key = PrivateKey::sample(7);
        let printed = format!("{key:?} {key:#?} {:?}", Some(&key));
        assert!(printed.contains(&key.public().fingerprint().to_string()));
        let body: Vec<&str> = key.expose().lines().filter(|line| !line.starts_with("-----")).collect();
        assert!(body.len() > 2);
        for line in body {
            assert!(!printed.contains(line), "{line}");
        }
        assert!(!printed.contains("BEGIN"));
    }

    #[test]
    fn drop_wipes_the_text() {
        fn wipes<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        let key = PrivateKey::sample(1);
        wipes(&key);
        wipes(&key.text);
    }

    #[test]
    fn a_broken_private_key_is_refused_without_repeating_a_byte_of_it() {
        let whole = PrivateKey::sample(3).expose().to_string();
        let body: String = whole.lines().filter(|line| !line.starts_with("-----")).collect();
        let check = |text: String| {
            let error = PrivateKey::parse(Zeroizing::new(text)).unwrap_err();
            let printed = format!("{error} {error:?}");
            for at in 0..body.len() - 8 {
                assert!(!printed.contains(&body[at..at + 8]), "{printed}");
            }
        };
        check(String::new());
        check(whole.replace("OPENSSH", "RSA"));
        check(whole[..whole.len() / 2].to_string());
        check(body.clone());
        check(whole.replacen(&body[..4], "AAAA", 1));
        let last = whole.trim_end().lines().rev().nth(1).unwrap().to_string();
        check(whole.replace(&last, &last.chars().rev().collect::<String>()));
    }

    #[test]
    fn public_keys_are_equal_by_their_material_and_one_line_each() {
        let line = PrivateKey::sample(5).public().to_openssh();
        let key = PublicKey::parse(&line).unwrap();
        assert_eq!(key, PublicKey::parse(&format!("  {line} renamed by a cloud\n")).unwrap());
        assert_eq!(key.to_openssh(), line);
        assert_eq!(line.split(' ').count(), 2);
        assert_ne!(key, *PrivateKey::sample(6).public());
        assert!(key.fingerprint().to_string().starts_with("SHA256:"));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        for bad in ["", "ssh-rsa", "ssh-rsa AAAA", &format!("{line} a\n{line} b"), &line.replace("ed25519", "rsa")] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }
}
