//! How a key file lies on disk: plain, or encrypted in OpenSSH's own format (aes256-ctr, bcrypt-pbkdf), which `ssh -i` and
//! `ssh-keygen` open with the same passphrase. Pure but for its cost: deriving a key from a passphrase takes a tenth of a
//! second, so it never runs on the async threads. It must never show a passphrase, nor take a file that it cannot open for
//! none.

use secrecy::{ExposeSecret, SecretString};
use ssh_key::{Cipher, Kdf, LineEnding};
use zeroize::Zeroizing;

use crate::model::PrivateKey;

/// As OpenSSH does by default (ssh-keygen(1), `-a`: 16 rounds).
const ROUNDS: u32 = 16;
/// Chance for one encryption: the salt, and the word by which a wrong passphrase shows.
pub(super) const CHANCE: usize = 20;

/// Why a file is no key for us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// It may be a good key: what we have does not open it.
    Locked(&'static str),
    /// It is no key, whatever the passphrase.
    Broken(String),
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked(why) => f.write_str(why),
            Self::Broken(why) => write!(f, "{why}: restore it from a backup"),
        }
    }
}

/// The passphrase, or none: then new files are plain, and encrypted ones stay shut.
pub(super) struct Seal(Option<SecretString>);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Seal(encrypts)" } else { "Seal(plain)" })
    }
}

impl Seal {
    pub(super) fn new(passphrase: Option<SecretString>) -> Self {
        Self(passphrase)
    }

    pub(super) fn encrypts(&self) -> bool {
        self.0.is_some()
    }

    /// The text of the file that keeps this key. What was encrypted is opened again before anybody relies on it.
    pub(super) fn close(&self, key: &PrivateKey, chance: &[u8; CHANCE]) -> Result<Zeroizing<String>, Shut> {
        let Some(passphrase) = &self.0 else { return Ok(Zeroizing::new(key.expose().to_string())) };
        let broken = |_| Shut::Broken("it cannot be encrypted".to_string());
        let (salt, word) = chance.split_at(CHANCE - 4);
        let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        let kdf = Kdf::Bcrypt { salt: salt.to_vec(), rounds: ROUNDS };
        let plain = ssh_key::PrivateKey::from_openssh(key.expose()).map_err(broken)?;
        let shut = plain.encrypt_with(Cipher::Aes256Ctr, kdf, word, passphrase.expose_secret()).map_err(broken)?;
        let text = shut.to_openssh(LineEnding::LF).map_err(broken)?;
        match self.holds(&text, key)? {
            true => Ok(text),
            false => Err(Shut::Broken("it does not come back out of its encryption as it went in".to_string())),
        }
    }

    /// The key in a file's text, encrypted or plain.
    pub(super) fn open(&self, text: Zeroizing<String>) -> Result<PrivateKey, Shut> {
        match ssh_key::PrivateKey::from_openssh(text.as_str()) {
            Ok(shut) if shut.is_encrypted() => {
                let passphrase = self.0.as_ref().ok_or(Shut::Locked(
                    "is encrypted, and the config file names no passphrase: name it in custody.encrypt",
                ))?;
                let plain = shut.decrypt(passphrase.expose_secret()).map_err(|_| {
                    Shut::Locked(
                        "the passphrase of custody.encrypt does not open it: name the one that it was encrypted with (or, \
                         if its bytes are damaged, restore it from a backup)",
                    )
                })?;
                parse(canonical(&plain)?)
            }
            _ => parse(text),
        }
    }

    /// Whether a file's text keeps this key.
    pub(super) fn holds(&self, text: &Zeroizing<String>, key: &PrivateKey) -> Result<bool, Shut> {
        if text.as_str() == key.expose() {
            return Ok(true);
        }
        same(&self.open(text.clone())?, key)
    }

    /// Whether two files are the same, or keep the same key.
    pub(super) fn agree(&self, one: &Zeroizing<String>, other: &Zeroizing<String>) -> Result<bool, Shut> {
        if one == other {
            return Ok(true);
        }
        same(&self.open(one.clone())?, &self.open(other.clone())?)
    }
}

/// Whether this is the text of an encrypted key file.
pub(super) fn is_encrypted(text: &str) -> bool {
    ssh_key::PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

fn parse(text: Zeroizing<String>) -> Result<PrivateKey, Shut> {
    PrivateKey::parse(text).map_err(|error| Shut::Broken(error.to_string()))
}

/// Whether both are the same key under the same comment, however each was written.
fn same(one: &PrivateKey, other: &PrivateKey) -> Result<bool, Shut> {
    let text = |key: &PrivateKey| {
        let broken = |_| Shut::Broken("not a readable OpenSSH private key".to_string());
        canonical(&ssh_key::PrivateKey::from_openssh(key.expose()).map_err(broken)?)
    };
    Ok(text(one)? == text(other)?)
}

/// The one text of a plain key, as rekeyd writes new ones: without the chance that every encryption brings with it.
fn canonical(key: &ssh_key::PrivateKey) -> Result<Zeroizing<String>, Shut> {
    let bare = ssh_key::PrivateKey::new(key.key_data().clone(), key.comment().clone());
    bare.and_then(|bare| bare.to_openssh(LineEnding::LF))
        .map_err(|_| Shut::Broken("not a readable OpenSSH private key".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(passphrase: &str) -> Seal {
        Seal::new(Some(passphrase.into()))
    }

    const CHANCE_A: [u8; CHANCE] = [7; CHANCE];
    const CHANCE_B: [u8; CHANCE] = [8; CHANCE];

    #[test]
    fn an_encrypted_key_comes_back_to_the_byte_and_says_nothing_without_the_passphrase() {
        let (key, ours) = (PrivateKey::sample(1), seal("a phrase"));
        let text = ours.close(&key, &CHANCE_A).unwrap();
        assert!(is_encrypted(&text) && !is_encrypted(key.expose()));
        assert_eq!(ours.open(text.clone()).unwrap().expose(), key.expose());
        assert_ne!(ours.close(&key, &CHANCE_B).unwrap(), text);
        assert_eq!(ours.close(&key, &CHANCE_A).unwrap(), text, "chance is an argument");
        for other in [seal("another"), Seal::new(None)] {
            let shut = other.open(text.clone()).unwrap_err();
            assert!(matches!(shut, Shut::Locked(_)), "{shut:?}");
            assert!(shut.to_string().contains("custody.encrypt"), "{shut}");
            assert!(!format!("{shut} {shut:?} {other:?} {ours:?}").contains("phrase\""), "{shut}");
        }
        let half = Zeroizing::new(text[..text.len() / 2].to_string());
        assert!(matches!(ours.open(half), Err(Shut::Broken(_))));
    }

    #[test]
    fn plain_keys_are_taken_with_a_passphrase_too_and_written_without_one() {
        let key = PrivateKey::sample(2);
        let plain = Zeroizing::new(key.expose().to_string());
        assert_eq!(seal("a").open(plain.clone()).unwrap().expose(), key.expose());
        assert_eq!(Seal::new(None).close(&key, &CHANCE_A).unwrap(), plain);
    }

    #[test]
    fn files_agree_by_their_key_where_one_is_encrypted() {
        let (key, ours) = (PrivateKey::sample(3), seal("a"));
        let close = |key: &PrivateKey, chance| ours.close(key, chance).unwrap();
        let plain = Zeroizing::new(key.expose().to_string());
        let (one, two) = (close(&key, &CHANCE_A), close(&key, &CHANCE_B));
        let other = close(&PrivateKey::sample(4), &CHANCE_A);
        let check = |a: &Zeroizing<String>, b: &Zeroizing<String>, expect| {
            assert_eq!(ours.agree(a, b).unwrap(), expect);
            assert_eq!(ours.agree(b, a).unwrap(), expect);
        };
        check(&one, &two, true);
        check(&one, &plain, true);
        check(&one, &other, false);
        check(&plain, &other, false);
        assert!(ours.agree(&plain, &Zeroizing::new("a7f3\n".to_string())).is_err());
        assert!(ours.holds(&two, &key).unwrap() && !ours.holds(&other, &key).unwrap());
        assert!(seal("b").agree(&one, &two).is_err() && seal("b").agree(&one, &one).unwrap());
    }
}
