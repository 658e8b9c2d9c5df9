//! Where a fleet's private half goes besides custody, as the file says it: `deliver`. It must never write one of these files,
//! nor let one of them be readable by everybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::care::read_command;
use super::fields::{Field, Group, Quote};
use super::fleet::Placed;
use super::report::Report;
use crate::rotation::Delivery;
use crate::rotation::deliver::{File, SshConfig};

const KINDS: [&str; 3] = ["exec", "copy", "ssh_config"];

/// Reads `deliver`.
pub(super) fn read(report: &mut Report, group: &Group<'_>) -> Vec<Delivery> {
    let field = group.get("deliver");
    let all = field.as_ref().map(|field| field.list(report)).unwrap_or_default();
    let deliveries: Vec<Delivery> = all.iter().filter_map(|one| read_one(report, one)).collect();
    if let Some(field) = &field {
        for (number, one) in deliveries.iter().enumerate().filter(|(_, one)| !matches!(one, Delivery::Exec(_))) {
            if deliveries[..number].iter().any(|before| before.to() == one.to()) {
                report.problem(&field.at, format!("{} is written twice: keep one of them", one.to()));
            }
        }
    }
    deliveries
}

/// Two fleets that are delivered to one file: each would take the other's key away.
pub(super) fn check_shared(report: &mut Report, fleets: &[(&str, Placed)]) {
    let files = |placed: &'_ Placed| -> Vec<String> {
        let is_file = |one: &&Delivery| !matches!(one, Delivery::Exec(_));
        placed.fleet.deliver.iter().filter(is_file).map(Delivery::to).collect()
    };
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (name, placed) in fleets {
        for file in files(placed) {
            match taken.get(&file) {
                Some(other) if other != name => report.problem(
                    &placed.at,
                    format!("{name} and {other} are both delivered to {file}: each fleet has a key of its own, and needs a file of its own"),
                ),
                _ => drop(taken.insert(file, name)),
            }
        }
    }
}

/// Nothing is delivered over what is ours: a key in custody, or the store.
pub(super) fn check_ours(report: &mut Report, fleets: &[(&str, Placed)], ours: &[&Path]) {
    for (name, placed) in fleets {
        for delivery in &placed.fleet.deliver {
            let (Delivery::Copy(file) | Delivery::SshConfig(SshConfig { file, .. })) = delivery else { continue };
            if let Some(place) = ours.iter().find(|place| file.to.starts_with(place)) {
                let (to, place) = (file.to.display(), place.display());
                report.problem(
                    &placed.at,
                    format!("{name} is delivered to {to}, in rekeyd's own {place}: name another folder"),
                );
            }
        }
    }
}

fn read_one(report: &mut Report, field: &Field<'_>) -> Option<Delivery> {
    let group = Group::open(report, field, &KINDS, Quote::Keys);
    let mut kinds = KINDS.into_iter().filter(|kind| group.get(kind).is_some());
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        report.problem(&field.at, "takes one of exec, copy and ssh_config".to_string());
        return None;
    };
    match kind {
        "exec" => {
            let exec = group.group(report, kind, &["command", "timeout"]);
            read_command(report, &exec).map(Delivery::Exec)
        }
        "copy" => {
            let copy = group.group(report, kind, &["to", "mode", "owner"]);
            read_file(report, &copy, parse_key_mode, 0o600).map(Delivery::Copy)
        }
        _ => {
            let snippet = group.group(report, kind, &["to", "mode", "owner", "identity_file"]);
            let why = "write where its readers find the private key: the `to` of a copy";
            let identity_file = snippet.need(report, "identity_file", why);
            let identity_file = identity_file.and_then(|field| field.parse(report, parse_path));
            let file = read_file(report, &snippet, parse_mode, 0o644);
            Some(Delivery::SshConfig(SshConfig { file: file?, identity_file: identity_file? }))
        }
    }
}

fn read_file(
    report: &mut Report,
    group: &Group<'_>,
    mode: fn(&str) -> Result<u32, String>,
    default: u32,
) -> Option<File> {
    let to = group.need(report, "to", "write the file, by its whole path").and_then(|at| at.parse(report, parse_path));
    let mode = group.parse(report, "mode", mode).unwrap_or(default);
    let owner = group.get("owner").map(|field| field.parse(report, parse_owner));
    Some(File { to: to?, mode, owner: owner.map_or(Some(None), |owner| owner.map(Some))? })
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    // It stands in quotes in an `ssh_config`.
    match path.is_absolute() && plain && !text.ends_with('/') && !text.contains(['\0', '\n', '"']) {
        true => Ok(path),
        false => Err(format!("{text:?} is no file by its whole path, without .. and quotes")),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    octal.filter(|mode| *mode <= 0o777 && *mode & 0o400 != 0).ok_or_else(|| {
        format!("{text:?} is no file mode that its owner can read: write it in octal and in quotes, as \"0640\"")
    })
}

fn parse_key_mode(text: &str) -> Result<u32, String> {
    match parse_mode(text)? {
        mode if mode & 0o137 != 0 => {
            Err(format!("{text} lets others at a private key: \"0600\", or \"0640\" for a group; never more"))
        }
        mode => Ok(mode),
    }
}

fn parse_owner(text: &str) -> Result<String, String> {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    match (1..=2).contains(&parts.len()) && parts.iter().all(|part| plain(part)) && text != ":" && !text.is_empty() {
        true => Ok(text.to_string()),
        false => Err(format!("{text:?} is no owner: write user, user:group or :group, by name or number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_never_delivered_for_everybody_to_read() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(parse_key_mode(text).ok(), expect, "{text}");
        check("0600", Some(0o600));
        check("0640", Some(0o640));
        check("0400", Some(0o400));
        check("440", Some(0o440));
        check("0644", None);
        check("0660", None);
        check("0700", None);
        check("4600", None);
        check("0200", None);
        check("600x", None);
        check("9600", None);
        assert_eq!(parse_mode("0644"), Ok(0o644));
    }

    #[test]
    fn paths_and_owners_are_whole_or_refused() {
        let check = |text: &str, expect: bool| assert_eq!(parse_path(text).is_ok(), expect, "{text}");
        check("/etc/ansible/web.key", true);
        check("web.key", false);
        check("/etc/../web.key", false);
        check("/etc/ansible/", false);
        check("/etc/\"web\"", false);
        let check = |text: &str, expect: bool| assert_eq!(parse_owner(text).is_ok(), expect, "{text}");
        check("ansible", true);
        check("ansible:ops", true);
        check(":ops", true);
        check("1000:1000", true);
        check(":", false);
        check("", false);
        check("a:b:c", false);
        check("an sible", false);
    }
}
