//! The config file, read anew while the daemon runs: what `rekeyd check` calls good is taken as a whole, anything else is
//! refused as a whole and the file read before stays in force. It must never take what only a start can change, nor reach
//! into an open rotation: that one follows its plan.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{Config, ConfigError};

use super::SharedEnv;

/// How the config file is read again, and when.
pub struct Reload {
    /// Somebody asks for it; who asks while one is under way gets one more.
    pub asked: Arc<Notify>,
    /// Reads and checks the file.
    pub read: Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
}

/// Why the file in force stays so.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is something wrong with the new one.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// It changes what only a start can change.
    #[error(
        "{key}: cannot be changed by a reload: restart rekeyd (it goes on where it stopped), or take the change back"
    )]
    Restart {
        /// Which, at the file's top level.
        key: &'static str,
    },
    /// It could not be read to its end: a fault of this build.
    #[error("reading it panicked: the log says where")]
    Lost,
}

impl Reload {
    /// Reads the file, which is to take the place of `old`. The error names the first kind of fault, each one of it.
    pub(super) async fn read(&self, old: &Arc<Config>, env: &SharedEnv) -> Result<Arc<Config>, Vec<ReloadError>> {
        let (read, old, env) = (self.read.clone(), old.clone(), env.clone());
        // Ten thousand fleets and their secrets: the loop goes on meanwhile.
        let taken = tokio::task::spawn_blocking(move || {
            let new = read().map_err(|error| vec![error.into()])?;
            let pinned: Vec<ReloadError> = pinned(&old, &new).map(|key| ReloadError::Restart { key }).collect();
            if !pinned.is_empty() {
                return Err(pinned);
            }
            // A key that cannot be read must not take the place of one that works.
            new.credentials(&*env).map_err(|error| vec![error.into()])?;
            Ok(Arc::new(new))
        });
        taken.await.unwrap_or_else(|_| Err(vec![ReloadError::Lost]))
    }
}

/// What differs of that on which this process stands: its lock, its port, its private keys and their names.
fn pinned<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = &'static str> + 'a {
    let differs = [
        ("store", old.store != new.store),
        ("listen", old.listen != new.listen),
        ("installation", old.installation != new.installation),
        ("custody", old.custody != new.custody),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const FILE: &str = concat!(
        "store: sqlite:///var/lib/rekeyd/rekeyd.db\n",
        "listen: 127.0.0.1:9797\n",
        "installation: a7f3\n",
        "custody: { directory: /var/lib/rekeyd/keys }\n",
        "accounts: { main: { provider: baidu-bcc, credentials: { access_key_id: { env: ID }, access_key_secret: { env: SECRET } } } }\n",
        "fleets: { web: { account: main, region: bj, all_instances: true, verify: none } }\n",
    );

    fn read(text: &str) -> Result<Config, ConfigError> {
        config::load(text, Path::new("rekeyd.yaml"), &crate::daemon::cloud)
    }

    /// What becomes of a file with this in the place of that, where `$ID` and `$SECRET` are set.
    async fn reload(from: &str, to: &str) -> Result<Arc<Config>, String> {
        assert!(FILE.contains(from));
        let text = FILE.replace(from, to);
        let reload = Reload { asked: Arc::default(), read: Arc::new(move || read(&text)) };
        let env: SharedEnv = Arc::new(|name| matches!(name, "ID" | "SECRET").then(|| "x".into()));
        let taken = reload.read(&Arc::new(read(FILE).unwrap()), &env).await;
        taken.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[tokio::test]
    async fn a_good_file_is_taken_and_another_refused_by_name() {
        let refused = async |from: &str, to: &str, expect: &[&str]| {
            let why = reload(from, to).await.err().unwrap_or_else(|| panic!("{to:?} was taken"));
            assert_eq!(why.lines().count(), expect.len(), "{why}");
            for (line, words) in why.lines().zip(expect) {
                assert!(line.contains(words), "{line:?} lacks {words:?}");
            }
        };
        assert!(reload("web", "web").await.is_ok());
        let taken = reload("fleets: { web", "fleets: { db").await.unwrap();
        assert!(taken.fleets.contains_key(&"db".into()));
        refused("web: {", "web: { nonsense: 1,", &["rekeyd.yaml:6: fleets.web.nonsense"]).await;
        refused("rekeyd.db", "other.db", &["store: cannot be changed by a reload: restart"]).await;
        refused("9797", "9798", &["listen: cannot"]).await;
        refused("a7f3", "b7f3", &["installation: cannot"]).await;
        refused("installation: a7f3\n", "", &["installation: cannot"]).await;
        refused("rekeyd/keys }", "rekeyd/keys, copies: [/mnt/copy] }", &["custody: cannot"]).await;
        refused("listen: 127.0.0.1:9797\ninstallation: a7f3\n", "", &["installation: cannot"]).await;
        refused("9797\ninstallation: a7f3", "1\ninstallation: x", &["listen: cannot", "installation: cannot"]).await;
        refused("{ env: SECRET }", "{ env: SECRIT }", &["$SECRIT is not set"]).await;
    }
}
