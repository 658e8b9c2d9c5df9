//! How a new key is proven, as the file says it: `none` in so many words, or `ssh` with what a login needs. It must never
//! assume either: whoever runs without proof has chosen to.

use super::fields::{Field, Group, Quote};
use super::fleet::bounded_duration;
use super::report::Report;
use super::secret::credential_name;
use super::tree::Value;
use std::path::PathBuf;

use crate::model::{Duration, HostKey, PublicKey};
use crate::rotation::{AddressFrom, JumpHost, OldKey, SshLogin, Verify};
use crate::ssh::credential_file;

/// For a connection, and for each part of a login, unless the file says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For a machine that runs again to take its new key, unless the file says otherwise: a slow boot, and a guest agent that
/// writes the key down late.
const DEADLINE: Duration = Duration::from_secs(600);

/// Reads `verify`.
pub(super) fn read(report: &mut Report, group: &Group<'_>) -> Option<Verify> {
    const WAYS: &str = "write verify: { ssh: { user: root, address: private } }, or verify: none; then the cloud's word is \
                        taken that a machine accepts its new key, a canary proves only the record, and replaced private \
                        keys are kept";
    let field = group.need(report, "verify", &format!("it has no default; {WAYS}"))?;
    match &field.node.value {
        Value::Text(text) if text == "none" => {
            report.note(
                &field.at,
                "none: the cloud's word is taken that a machine accepts its new key; a canary proves only the record, \
                 and replaced private keys are kept until `rekeyd release JOURNAL --allow=destroy`",
            );
            Some(Verify::None)
        }
        Value::Map(_) => {
            let verify = group.group(report, "verify", &["ssh"]);
            verify.need(report, "ssh", "it is the only way to prove a key; or write verify: none")?;
            let ssh = verify.group(
                report,
                "ssh",
                &["user", "port", "address", "old_key", "connect_timeout", "deadline", "jump"],
            );
            let user = ssh.need(report, "user", "write the user whose login proves the key, as root")?;
            let user = user.parse(report, parse_user);
            let port = ssh.parse(report, "port", parse_port).unwrap_or(22);
            let address = ssh.need(report, "address", "write private, public or tag:NAME")?;
            let address = address.parse(report, parse_address);
            let old_key = ssh.parse(report, "old_key", parse_old_key).unwrap_or(OldKey::Refuse);
            let connect_timeout = ssh.parse(report, "connect_timeout", parse_timeout).unwrap_or(CONNECT_TIMEOUT);
            let deadline = ssh.parse(report, "deadline", parse_deadline).unwrap_or(DEADLINE);
            let jump = match ssh.get("jump") {
                Some(_) => Some(read_jump(report, &ssh)?),
                None => None,
            };
            let (user, address) = (user?, address?);
            Some(Verify::Ssh(SshLogin { user, port, address, old_key, connect_timeout, jump, deadline }))
        }
        _ => {
            report.problem(&field.at, format!("takes none, or ssh; {WAYS}"));
            None
        }
    }
}

/// The host that machines are reached through.
fn read_jump(report: &mut Report, ssh: &Group<'_>) -> Option<JumpHost> {
    let jump = ssh.group(report, "jump", &["host", "port", "user", "key_file", "host_key"]);
    let host = jump
        .need(report, "host", "write the jump host's address or name")
        .and_then(|field| field.parse(report, parse_host));
    let port = jump.parse(report, "port", parse_port).unwrap_or(22);
    let user = jump
        .need(report, "user", "write the user to log in as on the jump host")
        .and_then(|field| field.parse(report, parse_user));
    let key_file = jump.need(report, "key_file", "write the file of the private key that the jump host takes");
    let key_file = key_file.and_then(|field| read_key_file(report, &field));
    const SCAN: &str = "write its host key, as `ssh-keyscan -t ed25519 HOST | cut -d' ' -f2-` prints it: host_key: \
                        \"ssh-ed25519 AAAA…\"";
    let host_key = jump.need(report, "host_key", SCAN).and_then(|field| field.parse(report, parse_host_key));
    Some(JumpHost { host: host?, port, user: user?, key_file: key_file?, host_key: host_key? })
}

/// A path, or a credential that systemd hands over.
fn read_key_file(report: &mut Report, field: &Field<'_>) -> Option<PathBuf> {
    let Value::Map(_) = &field.node.value else { return field.parse(report, parse_key_file) };
    let way = Group::open(report, field, &["credential"], Quote::Nothing);
    let name = way.need(report, "credential", "write { credential: NAME }, or the path of a file")?;
    name.parse(report, |text| credential_name(text).map(|name| credential_file(&name)).map_err(str::to_string))
}

fn parse_host(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match (1..=253).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
        true => Ok(text.to_string()),
        false => Err(format!("{text:?} is no host: an address or a name, without user and port")),
    }
}

fn parse_key_file(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err(format!("{text:?} is no absolute path; a credential of systemd's is {{ credential: NAME }}")),
    }
}

fn parse_host_key(text: &str) -> Result<HostKey, String> {
    let key = PublicKey::parse(text)
        .map_err(|_| {
            "is no public key: write host_key: \"ssh-ed25519 AAAA…\", without the host's name before it, as `ssh-keyscan -t \
             ed25519 HOST | cut -d' ' -f2-` prints it"
                .to_string()
        })?;
    Ok(HostKey::of(&key))
}

fn parse_user(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=32).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
        true => Ok(text.to_string()),
        false => Err(format!("{text:?} is no user's name: letters, digits, '-', '_' and '.', at most 32")),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{text:?} is no port: 1 to 65535"))
}

fn parse_address(text: &str) -> Result<AddressFrom, String> {
    match text.split_once(':') {
        None if text == "private" => Ok(AddressFrom::Private),
        None if text == "public" => Ok(AddressFrom::Public),
        Some(("tag", name)) if !name.is_empty() => Ok(AddressFrom::Tag(name.to_string())),
        _ => Err(format!("{text:?} is no address: write private, public or tag:NAME")),
    }
}

fn parse_old_key(text: &str) -> Result<OldKey, String> {
    match text {
        "refuse" => Ok(OldKey::Refuse),
        "warn" => Ok(OldKey::Warn),
        _ => Err(format!("{text:?} is neither refuse nor warn")),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = bounded_duration(text)?;
    match (1..=60).contains(&timeout.as_secs()) {
        true => Ok(timeout),
        false => Err(format!("{text} is no time-out of a login: 1s to 60s")),
    }
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = bounded_duration(text)?;
    match (1..=3600).contains(&deadline.as_secs()) {
        true => Ok(deadline),
        false => Err(format!("{text} is no deadline of a proof: 1s to 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_needs_is_read_or_refused_with_the_rule() {
        assert_eq!(parse_user("root").as_deref(), Ok("root"));
        assert!(parse_user("").is_err() && parse_user("-oProxyCommand=x").is_err() && parse_user("a b").is_err());
        assert_eq!(parse_port("22"), Ok(22));
        assert!(parse_port("0").is_err() && parse_port("65536").is_err() && parse_port("ssh").is_err());
        let check = |text: &str, expect: Option<AddressFrom>| assert_eq!(parse_address(text).ok(), expect, "{text}");
        check("private", Some(AddressFrom::Private));
        check("public", Some(AddressFrom::Public));
        check("tag:ssh-address", Some(AddressFrom::Tag("ssh-address".to_string())));
        check("tag:", None);
        check("10.0.0.1", None);
        assert!(parse_host("bastion.example").is_ok() && parse_host("2001:db8::1").is_ok());
        assert!(parse_host("root@bastion").is_err() && parse_host("").is_err() && parse_host("-x").is_err());
        assert!(parse_key_file("/etc/key").is_ok() && parse_key_file("key").is_err());
        const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRt5fUrGTvf1m8NgBbQ6BBAjSLiQbbcyYFhPzhB6YAF";
        assert_eq!(parse_host_key(KEY).unwrap().algorithm, "ssh-ed25519");
        let why = parse_host_key(&format!("bastion {KEY}")).unwrap_err();
        assert!(why.contains("host_key: \"ssh-ed25519 AAAA…\"") && why.contains("cut -d' ' -f2-"), "{why}");
        assert_eq!(parse_old_key("warn"), Ok(OldKey::Warn));
        assert!(parse_old_key("ignore").is_err());
        assert_eq!(parse_timeout("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_deadline("10m"), Ok(Duration::from_secs(600)));
        assert!(parse_deadline("0s").is_err() && parse_deadline("2h").is_err());
        assert!(parse_timeout("0s").is_err() && parse_timeout("2m").is_err());
    }
}
