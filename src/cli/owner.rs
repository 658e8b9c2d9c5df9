//! Who may change things: the account that custody's directory belongs to, or the store where the keys are elsewhere, and no
//! other. A key or database that root has made could not be read by the daemon. It must never change an owner itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::bail;

use crate::config::{Config, Env};

/// Refuses a mutating verb under another account than custody's owner's, naming the way on.
pub(super) fn check(config: &Config, verb: &str) -> anyhow::Result<()> {
    let place = config.custody.keeper.directory().unwrap_or(&config.store);
    let (Some(ours), Some(owner)) = (own_uid(), owner_of(place)) else { return Ok(()) };
    match may_change(ours, owner) {
        true => Ok(()),
        false => {
            let name = user_name(owner.uid());
            bail!(
                "{} belongs to {name}: what another account makes there, rekeyd's own could not read; \
                 run: sudo -u {name} rekeyd {verb}",
                place.display()
            )
        }
    }
}

/// The account that custody belongs to, by name; `rekeyd` where that is not to be seen.
pub(super) fn account(custody: &Path) -> String {
    owner_of(custody).map_or_else(|| "rekeyd".to_string(), |owner| user_name(owner.uid()))
}

/// Who gives the order, for the journal: the person behind sudo, else the account. It is no proof of who it was.
pub(super) fn person(env: Env<'_>) -> String {
    let named = |name: &str| env(name).and_then(|value| value.into_string().ok());
    let sane = |name: &String| !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
    ["SUDO_USER", "LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| named(name).filter(sane))
        .or_else(|| own_uid().map(user_name))
        .unwrap_or_else(|| "unknown".to_string())
}

/// Whose custody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there, and this one's.
    Of(u32),
    /// It would be made in a directory of this one's.
    Above(u32),
}

impl Owner {
    fn uid(self) -> u32 {
        match self {
            Self::Of(uid) | Self::Above(uid) => uid,
        }
    }
}

fn may_change(ours: u32, owner: Owner) -> bool {
    match owner {
        Owner::Of(uid) => ours == uid,
        // Others cannot write there, or may (/tmp); root could, and would make a directory that the owner cannot enter.
        Owner::Above(uid) => ours != 0 || uid == 0,
    }
}

fn owner_of(place: &Path) -> Option<Owner> {
    let of = |path: &Path| std::fs::metadata(path).ok().map(|found| found.uid());
    of(place).map(Owner::Of).or_else(|| of(place.parent()?).map(Owner::Above))
}

/// Our effective user id; `None` where there is no /proc.
fn own_uid() -> Option<u32> {
    effective_uid(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `Uid:` has the real, effective, saved and file-system id (proc_pid_status(5)).
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&users, uid).unwrap_or_else(|| format!("'#{uid}'"))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    line.split(':').next().map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_change_custody_and_root_does_not_begin_it_in_anothers_place() {
        let check = |ours, owner, expect| assert_eq!(may_change(ours, owner), expect, "{ours} {owner:?}");
        check(998, Owner::Of(998), true);
        check(0, Owner::Of(998), false);
        check(1000, Owner::Of(998), false);
        check(0, Owner::Of(0), true);
        check(1000, Owner::Above(0), true);
        check(0, Owner::Above(0), true);
        check(0, Owner::Above(998), false);
        check(998, Owner::Above(998), true);
    }

    #[test]
    fn ids_and_names_are_read_as_linux_writes_them() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t998\t998\t998\nGid:\t0\t0\t0\t0\n"), Some(998));
        assert_eq!(effective_uid("Name:\tx\n"), None);
        let passwd = "root:x:0:0:root:/root:/bin/bash\nrekeyd:x:998:998::/var/lib/rekeyd:/usr/sbin/nologin\n";
        assert_eq!(name_in(passwd, 998).as_deref(), Some("rekeyd"));
        assert_eq!(name_in(passwd, 9), None);
        assert!(own_uid().is_some());
    }
}
