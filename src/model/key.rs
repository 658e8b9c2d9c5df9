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
    /// Not an OpenSSH private key file, or an encrypted one.
    #[error("not a readable OpenSSH private key: {0}")]
    Private(ssh_key::Error),
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
    /// Reads a line of `authorized_keys` form: `ssh-rsa AAAA… comment`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        ssh_key::PublicKey::from_openssh(text.trim()).map(Self).map_err(KeyError::Public)
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
        let key = ssh_key::PrivateKey::from_openssh(text.as_str()).map_err(KeyError::Private)?;
        if key.is_encrypted() {
            return Err(KeyError::Private(ssh_key::Error::Encrypted));
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
