//! Where a cloud's secrets come from: the environment, a file, or a credential that systemd hands over. The config
//! file names the source and never holds the secret. Nothing in here prints a value, nor a name that may be one.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::fields::{Field, Group, Quote};
use super::report::{At, Report};
use super::tree::Value;

/// How an environment variable is looked up: [`process_env`] outside tests.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// This process's environment: the only place that asks it.
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The largest secret that is read; a session token has about 2 KiB.
const SECRET_MAX: u64 = 64 * 1024;

/// Where one secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub(super) source: Source,
    pub(super) at: At,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// An environment variable.
    Env(String),
    /// A file, by its absolute path.
    File(PathBuf),
    /// A file of this name in `$CREDENTIALS_DIRECTORY` (systemd: `LoadCredential=`, `SetCredentialEncrypted=`).
    Credential(String),
}

/// What a secret looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One word, as a cloud or a server makes them.
    Word,
    /// What a person may have thought up: any one line.
    Phrase,
}

/// A secret that was read, and what its keeper should know.
pub(super) struct Fetched {
    pub(super) value: SecretString,
    pub(super) warning: Option<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(from {})", self.origin())
    }
}

impl Secret {
    /// Where it comes from, for messages: `$NAME`, `file PATH`, `credential NAME`. Something that looks as if the
    /// secret itself was written there is not repeated.
    pub fn origin(&self) -> String {
        let shown =
            |name: &str| if looks_like_a_name(name) { name.to_string() } else { "(name not shown)".to_string() };
        match &self.source {
            Source::Env(name) => format!("${}", shown(name)),
            Source::File(path) => format!("file {}", path.display()),
            Source::Credential(name) => format!("credential {}", shown(name)),
        }
    }

    /// The source as one text, to be compared and never shown: a secret may have been written in a name's place.
    pub(super) fn key(&self) -> String {
        match &self.source {
            Source::Env(name) => format!("env {name}"),
            Source::File(path) => format!("file {}", path.display()),
            Source::Credential(name) => format!("credential {name}"),
        }
    }

    /// Whether an environment variable is set to something; true of any other source.
    pub(super) fn is_set(&self, env: Env<'_>) -> bool {
        match &self.source {
            Source::Env(name) => env(name).is_some_and(|value| !value.is_empty()),
            _ => true,
        }
    }

    /// The name of the systemd credential that it is, if it is one and its name may be shown.
    pub(super) fn credential(&self) -> Option<&str> {
        match &self.source {
            Source::Credential(name) if looks_like_a_name(name) => Some(name),
            _ => None,
        }
    }

    /// Reads `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`.
    pub(super) fn read(report: &mut Report, field: &Field<'_>) -> Option<Self> {
        const WAYS: &str = "write { env: NAME }, { file: /PATH } or { credential: NAME }";
        if let Value::Text(_) = field.node.value {
            report.problem(
                &field.at,
                format!(
                    "a secret does not stand in this file (what stands there is not shown; if it was one, change it); {WAYS}"
                ),
            );
            return None;
        }
        let group = Group::open(report, field, &["env", "file", "credential"], Quote::Nothing);
        let given: Vec<(&str, Field<'_>)> =
            ["env", "file", "credential"].into_iter().filter_map(|way| Some((way, group.get(way)?))).collect();
        let [(way, field)] = given.as_slice() else {
            if matches!(field.node.value, Value::Map(_)) {
                report.problem(&group.at, format!("takes exactly one source; {WAYS}"));
            }
            return None;
        };
        let text = field.text(report)?;
        let source = match *way {
            "env" if text.is_empty() || text.contains(['=', '\0']) => Err("is no name of an environment variable"),
            "env" => Ok(Source::Env(text.to_string())),
            "file" if !text.starts_with('/') || text.contains('\0') => Err("is no absolute path"),
            "file" => Ok(Source::File(PathBuf::from(text))),
            _ => credential_name(text).map(Source::Credential),
        };
        match source {
            Ok(source) => Some(Self { source, at: group.at.clone() }),
            Err(why) => {
                report.problem(&field.at, format!("{why} (what stands there is not shown: it may be a secret)"));
                None
            }
        }
    }

    /// Fetches the secret of a cloud's; see [`Secret::fetch_as`].
    pub(super) fn fetch(&self, env: Env<'_>) -> Result<Fetched, String> {
        self.fetch_as(Kind::Word, env)
    }

    /// Fetches the secret. The reason for a failure holds neither the value nor any part of it.
    pub(super) fn fetch_as(&self, kind: Kind, env: Env<'_>) -> Result<Fetched, String> {
        let origin = self.origin();
        let (bytes, warning) = match &self.source {
            Source::Env(name) => match env(name) {
                None => return Err(format!("{origin} is not set; set it for this process, or name another source")),
                Some(value) => (value.into_encoded_bytes(), None),
            },
            Source::File(path) => read_file(path, &origin)?,
            Source::Credential(name) => {
                let Some(directory) = env("CREDENTIALS_DIRECTORY") else {
                    return Err(format!(
                        "{origin}: $CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential=; \
                         from a shell use {{ env: NAME }} or {{ file: /PATH }}"
                    ));
                };
                // systemd guards the directory; its files may be readable by the service's group.
                (read_file(&Path::new(&directory).join(name), &origin)?.0, None)
            }
        };
        Ok(Fetched { value: clean(bytes, &origin, kind)?, warning })
    }
}

/// The name of a credential of systemd's. The reason for a refusal does not repeat it.
pub(super) fn credential_name(text: &str) -> Result<String, &'static str> {
    match text.is_empty() || text.starts_with('.') || text.contains(['/', '\0']) {
        true => Err("is no name of a systemd credential: a file name without `/`"),
        false => Ok(text.to_string()),
    }
}

fn read_file(path: &Path, origin: &str) -> Result<(Vec<u8>, Option<String>), String> {
    let failed = |error: std::io::Error| format!("{origin} cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(format!("{origin} cannot be read: it is a directory"));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_MAX {
        return Err(format!("{origin} is larger than {SECRET_MAX} bytes: that is no secret"));
    }
    #[cfg(unix)]
    let warning = {
        use std::os::unix::fs::PermissionsExt;
        let mode = about.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            format!(
                "{origin} can be used by others than its owner (mode {mode:04o}); close it: chmod 600 {}",
                path.display()
            )
        })
    };
    #[cfg(not(unix))]
    let warning = None;
    Ok((bytes, warning))
}

/// One newline at the end is an editor's, all else is the secret; and a secret that holds a blank or a line break is
/// none: it would be signed with, or would break a header.
fn clean(bytes: Vec<u8>, origin: &str, kind: Kind) -> Result<SecretString, String> {
    let mut text = String::from_utf8(bytes).map_err(|_| format!("{origin} holds something that is no text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let secret = SecretString::from(text);
    let text = secrecy::ExposeSecret::expose_secret(&secret);
    if text.is_empty() {
        return Err(format!("{origin} is empty"));
    }
    match kind {
        Kind::Word if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(format!("{origin} holds a blank, a line break or a character outside ASCII; no secret of a cloud does"))
        }
        Kind::Phrase if text.chars().any(char::is_control) => {
            Err(format!("{origin} holds more than one line, or a character that no keyboard types"))
        }
        _ => Ok(secret),
    }
}

/// Whether this is likely the name of a place that a secret is read from, and not the secret itself.
/// Variables are written in upper case and credentials in lower; access keys mix them, or are half digits.
pub fn looks_like_a_name(name: &str) -> bool {
    let digits = name.chars().filter(char::is_ascii_digit).count();
    let one_case =
        !(name.contains(|c: char| c.is_ascii_lowercase()) && name.contains(|c: char| c.is_ascii_uppercase()));
    let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    name.len() <= 64 && digits <= 4 && one_case && legal
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn secret(source: Source) -> Secret {
        Secret { source, at: At { line: 1, path: "accounts.lh.credentials.access_key_id".into() } }
    }

    #[test]
    fn secrets_come_from_env_file_and_credential_and_lose_one_newline() {
        let dir = tempfile::tempdir().unwrap();
        let env = |name: &str| match name {
            "ID" => Some(OsString::from("AKID1")),
            "CREDENTIALS_DIRECTORY" => Some(dir.path().as_os_str().to_owned()),
            _ => None,
        };
        let path = dir.path().join("lh-secret");
        let check = |content: &str, expect: Result<&str, &str>| {
            std::fs::write(&path, content).unwrap();
            for source in [Source::File(path.clone()), Source::Credential("lh-secret".into())] {
                match (secret(source).fetch(&env), expect) {
                    (Ok(read), Ok(value)) => assert_eq!(read.value.expose_secret(), value),
                    (Err(why), Err(part)) => {
                        assert!(why.contains(part), "{why}");
                        assert!(!why.contains("wJalr"), "{why}");
                    }
                    (Ok(_), Err(part)) => panic!("{content:?} was taken, expected {part}"),
                    (Err(why), Ok(_)) => panic!("{why}"),
                }
            }
        };
        assert_eq!(
            secret(Source::Env("ID".into())).fetch(&env).unwrap_or_else(|why| panic!("{why}")).value.expose_secret(),
            "AKID1"
        );
        check("wJalr", Ok("wJalr"));
        check("wJalr\n", Ok("wJalr"));
        check("wJalr\r\n", Ok("wJalr"));
        check("wJalr\n\n", Err("line break"));
        check(" wJalr", Err("blank"));
        check("wJalr ", Err("blank"));
        check("wJalr\0", Err("outside ASCII"));
        check("wJalré", Err("outside ASCII"));
        check("", Err("is empty"));
        check("\n", Err("is empty"));
        check(&"wJalr".repeat(20_000), Err("larger than"));
        std::fs::remove_file(&path).unwrap();
        let gone = secret(Source::File(path)).fetch(&env).err().unwrap();
        assert!(gone.contains("lh-secret cannot be read"), "{gone}");
        let directory = secret(Source::File(dir.path().into())).fetch(&env).err().unwrap();
        assert!(directory.contains("directory"), "{directory}");
    }

    #[test]
    fn a_source_that_is_not_there_is_named_unless_it_may_be_the_secret() {
        let nothing = |_: &str| None;
        let check = |source: Source, expect: &str| {
            let why = secret(source).fetch(&nothing).err().unwrap();
            assert!(why.contains(expect), "{why}");
            assert!(!why.contains("AKID") && !why.contains("0f1e2d"), "{why}");
        };
        check(Source::Env("TENCENTCLOUD_SECRET_ID".into()), "$TENCENTCLOUD_SECRET_ID is not set");
        check(Source::Env("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE".into()), "$(name not shown) is not set");
        check(Source::Credential("lighthouse-secret".into()), "credential lighthouse-secret: $CREDENTIALS_DIRECTORY");
        check(Source::Credential("0f1e2d3c4b5a69788796a5b4c3d2e1f0".into()), "credential (name not shown)");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_warned_about() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        std::fs::write(&path, "x").unwrap();
        let check = |mode: u32, warned: bool| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = secret(Source::File(path.clone())).fetch(&|_| None).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(read.warning.is_some(), warned, "{mode:o}: {:?}", read.warning);
        };
        check(0o600, false);
        check(0o400, false);
        check(0o640, true);
        check(0o604, true);
    }
}
