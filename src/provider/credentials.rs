//! An account's API credentials. They must never print: not in `Debug`, not in an error, not in a log.

use secrecy::{ExposeSecret, SecretString};

/// The access key of one account, and the session token where it is a temporary one.
#[derive(Clone)]
pub struct Credentials {
    /// SecretId (Tencent), AccessKeyId (Alibaba, Baidu). No secret, but kept out of logs all the same.
    pub access_key_id: String,
    /// SecretKey, AccessKeySecret.
    pub access_key_secret: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl Credentials {
    /// Whether both are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let token = |one: &Self| one.session_token.as_ref().map(|token| token.expose_secret().to_string());
        self.access_key_id == other.access_key_id
            && self.access_key_secret.expose_secret() == other.access_key_secret.expose_secret()
            && token(self) == token(other)
    }

    /// Whether each is one word: blanks or control characters would break the signature.
    pub fn check(&self) -> Result<(), String> {
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        let token = self.session_token.as_ref().map(|token| token.expose_secret());
        let parts = [
            ("access_key_id", Some(self.access_key_id.as_str())),
            ("access_key_secret", Some(self.access_key_secret.expose_secret())),
            ("session_token", token),
        ];
        match parts.into_iter().find(|(_, part)| part.is_some_and(|part| !word(part))) {
            Some((name, _)) => Err(format!("{name} is empty or holds blanks or control characters")),
            None => Ok(()),
        }
    }

    /// What must not be shown.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        let known = [self.access_key_id.as_str(), self.access_key_secret.expose_secret()];
        let known = known.into_iter().chain(self.session_token.as_ref().map(|token| token.expose_secret()));
        known.map(SecretString::from).collect()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.session_token.is_some() { "temporary" } else { "permanent" };
        write!(f, "Credentials({kind})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_print_nothing_and_are_known_to_their_redactor() {
        let credentials = Credentials {
            access_key_id: "the-id".to_string(),
            access_key_secret: "the-secret".into(),
            session_token: Some("the-token".into()),
        };
        assert_eq!(format!("{credentials:?}"), "Credentials(temporary)");
        let clean =
            crate::provider::Keyring::from(credentials).redactor().message("the-id/the-secret/the-token/the-end");
        assert_eq!(clean, "[secret]/[secret]/[secret]/the-end");
    }
}
