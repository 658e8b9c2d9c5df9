//! Shortens and redacts what a cloud wrote before it stands in an error: messages are logged and journalled.
//! It must never let a key id, secret, token, signature or private key through; losing a harmless word is well.

use secrecy::{ExposeSecret, SecretString};

/// The longest message that is kept, in characters.
pub const MESSAGE_MAX: usize = 300;

/// What stands before a secret, at the end of a name, in lower case and without `_` and `-`.
const NAMES: [&str; 11] = [
    "signature",
    "secret",
    "token",
    "password",
    "credential",
    "authorization",
    "secretkey",
    "accesskeysecret",
    "secretid",
    "accesskeyid",
    "privatekey",
];

/// How the clouds' key ids begin (Tencent, Alibaba, Alibaba STS, Baidu).
const KEY_IDS: [&str; 4] = ["AKID", "LTAI", "STS.", "ALTAK"];

/// Takes secrets out of text: those that it knows, and all that looks like one.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Vec<SecretString>,
}

impl Redactor {
    /// A redactor that also knows these very secrets. Empty ones are ignored.
    pub fn new(known: impl IntoIterator<Item = SecretString>) -> Self {
        Self { known: known.into_iter().filter(|secret| !secret.expose_secret().is_empty()).collect() }
    }

    /// A message without secrets, in one line, of at most [`MESSAGE_MAX`] characters.
    pub fn message(&self, text: &str) -> String {
        // A body of megabytes is not scanned to its end: what is cut off is not shown.
        let mut text: String = text.chars().take(MESSAGE_MAX * 20).collect();
        for secret in &self.known {
            text = text.replace(secret.expose_secret(), "[secret]");
        }
        let text = without_pem(&text).replace(|c: char| c.is_control(), " ");
        let clean = words(&text);
        let mut short: String = clean.chars().take(MESSAGE_MAX).collect();
        if short.len() < clean.len() {
            short.push('…');
        }
        short
    }

    /// An error code or request id: one word of at most 128 characters without secrets, blanks or quotes.
    pub fn word(&self, text: &str) -> String {
        let legal = |c: &char| c.is_ascii_alphanumeric() || "._-:".contains(*c);
        self.message(&text.chars().filter(legal).take(128).collect::<String>())
    }
}

/// The text with every private-key block, whole or cut off, replaced.
fn without_pem(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("PRIVATE KEY") {
        let begin = rest[..at].rfind("-----BEGIN").unwrap_or(at);
        out.push_str(&rest[..begin]);
        out.push_str("[private key]");
        let body = &rest[at..];
        let end = body.find("-----END").map(|end| &body[end + "-----END".len()..]);
        rest = end.and_then(|end| end.find("-----").map(|dashes| &end[dashes + 5..])).unwrap_or("");
    }
    out + rest
}

/// The text with every secret-looking word, and every word that is the value of a secret's name, replaced.
fn words(text: &str) -> String {
    let mut out = String::new();
    let mut after_name = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if in_word(first) {
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            // `=` is part of base 64, so `Signature=abc` is one word: judge its two sides apart.
            match word.split_once('=').filter(|(name, _)| is_name(name)) {
                Some((name, value)) => {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(if value.is_empty() { "" } else { "[redacted]" });
                    after_name = value.is_empty();
                }
                None if after_name || looks_secret(word) => {
                    out.push_str("[redacted]");
                    after_name = false;
                }
                None => {
                    out.push_str(word);
                    after_name =
                        is_name(word) && tail.trim_start_matches(['"', '\'', ' ', '\\']).starts_with([':', '=']);
                }
            }
            rest = tail;
        } else {
            after_name = after_name && !matches!(first, ',' | ';' | '&' | '}');
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_-.%~".contains(c)
}

fn is_name(word: &str) -> bool {
    let plain: String = word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    NAMES.iter().any(|name| plain.ends_with(name))
}

fn looks_secret(word: &str) -> bool {
    if KEY_IDS.iter().any(|start| word.starts_with(start)) && word.len() >= 12 {
        return true;
    }
    // Digests, tokens and key bodies are long and hold digits. Error codes hold none, request ids are UUIDs.
    let uuid = word.len() == 36 && word.matches('-').count() == 4;
    let long = word.split(['.', '-']).any(|part| part.len() >= 28 && part.contains(|c: char| c.is_ascii_digit()));
    long && !uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        let redactor = Redactor::new(["s3cr3t!".to_string().into(), String::new().into()]);
        assert_eq!(redactor.message(input), expect, "of {input:?}");
    }

    #[test]
    fn ordinary_messages_stay_as_they_are() {
        for text in [
            "The instance `lhins-ruy9d2tw` is not RUNNING or STOPPED.",
            "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation",
            "request 3c140219-cfe9-470e-b241-907877d6fb03 failed",
            "密钥对不存在 ins-1e4r6y8i",
            "The token is invalid; sign again",
            "",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn secrets_are_taken_out() {
        check("key s3cr3t! is wrong", "key [secret] is wrong");
        check("SecretId AKIDz8krbsJ5yKBZQpn74WFkmLPx3gnPhESA not found", "SecretId [redacted] not found");
        check("LTAI5tFakeFakeFake0001 is disabled", "[redacted] is disabled");
        check("Signature=abc, host", "Signature=[redacted], host");
        check(r#"{"SecretKey": "abc def", "x":1}"#, r#"{"SecretKey": "[redacted] def", "x":1}"#);
        check("x-bce-security-token: zzz more", "x-bce-security-token: [redacted] more");
        check("got 72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168 instead", "got [redacted] instead");
        check(
            "a -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY----- b",
            "a [private key] b",
        );
        check("-----BEGIN RSA PRIVATE KEY-----\nMIIE cut off", "[private key]");
    }

    #[test]
    fn long_and_many_lined_text_becomes_one_short_line() {
        let long = Redactor::default().message(&"ab\n".repeat(1_000_000));
        assert_eq!(long.chars().count(), MESSAGE_MAX + 1);
        assert!(long.ends_with('…') && !long.contains('\n'));
    }

    #[test]
    fn a_code_is_one_clean_word() {
        let word = |text: &str| Redactor::default().word(text);
        assert_eq!(word("InvalidParameterValue.KeyPairNotSupported"), "InvalidParameterValue.KeyPairNotSupported");
        assert_eq!(word("<b>\"x y\"\n"), "bxy");
        assert!(word(&"a".repeat(10_000)).len() <= 131);
    }
}
