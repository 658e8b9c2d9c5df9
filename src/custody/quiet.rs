//! What a keeper said, fit for an error: one short line without a secret. Losing a harmless word is well; a byte of a key,
//! token or passphrase must never come through.

/// The longest that is shown, in characters.
const MOST: usize = 200;
/// Words as long as this are digests, tokens or parts of keys.
const WORD: usize = 32;
/// So many characters of a secret in a row are a part of it.
const PART: usize = 8;

/// The last line of a text; `secrets` are those that its writer knew. Nothing is shown of a text that holds a part of one,
/// or a private key of any kind.
pub(super) fn last_line(text: &[u8], secrets: &[&str]) -> String {
    let text = String::from_utf8_lossy(text);
    let tells = secrets.iter().any(|secret| {
        let parts: Vec<char> = secret.chars().collect();
        // A secret's own head and foot are no secret: "PRIVATE KEY" below stands for them.
        let mut parts = parts.windows(PART).map(String::from_iter);
        parts.any(|part| !part.contains("---") && !KEY_HEADER.contains(&part) && text.contains(&part))
    });
    if tells || text.contains("PRIVATE KEY") {
        return "(what it said is not shown: a secret stands in it)".to_string();
    }
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut shown: String = words(&clean).chars().take(MOST).collect();
    if shown.len() < clean.len() && shown.chars().count() == MOST {
        shown.push('…');
    }
    shown
}

/// What every OpenSSH key begins with.
const KEY_HEADER: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

fn words(line: &str) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let (mut out, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        let end = match in_word(first) {
            true => rest.find(|c| !in_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        out.push_str(if end >= WORD { "[redacted]" } else { &rest[..end] });
        rest = &rest[end..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PrivateKey;

    #[test]
    fn the_last_line_is_shown_and_no_secret_in_it() {
        let check = |text: &str, secrets: &[&str], expect: &str| {
            assert_eq!(last_line(text.as_bytes(), secrets), expect, "{text:?}");
        };
        check("one\ntwo: no\u{1b}[31m such file\n\n", &[], "two: no [31m such file");
        check("", &[], "");
        check("permission denied", &["s.abcdefgh"], "permission denied");
        let hidden = "(what it said is not shown: a secret stands in it)";
        check("bad token s.abcdefgh\nso there", &["s.abcdefgh"], hidden);
        check("bad token abcdefgh", &["s.abcdefgh"], hidden);
        check("-----BEGIN RSA PRIVATE KEY-----\nAAAA", &[], hidden);
        check("got AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 instead", &[], "got [redacted] instead");
        check(&"ab ".repeat(100), &[], &format!("{}…", &"ab ".repeat(100)[..200]));
    }

    #[test]
    fn a_line_of_the_key_itself_is_never_shown() {
        let key = PrivateKey::sample(1);
        for line in key.expose().lines().filter(|line| !line.starts_with("---")) {
            for from in 0..line.len() - PART {
                let shown = last_line(format!("x {}", &line[from..from + PART]).as_bytes(), &[key.expose()]);
                assert!(shown.starts_with("(what"), "{shown}");
            }
        }
    }
}
