//! Custody on disk: one standard OpenSSH file a key, named as the key pair, in a directory and in each of its copies, plain or
//! encrypted with one passphrase. `ssh -i` takes the files as they are. It must never write over a key, nor answer for a copy
//! that it did not read.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::folder::{Folder, damaged};
use super::seal::{CHANCE, Seal, Shut, is_encrypted};
use super::{Custodian, CustodyError, MARK_FILE, check_name};
use crate::model::{KeyPairName, Mark, PrivateKey};

/// Where the keys lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory, mode 0700; it is made if only its last component is missing.
    pub directory: PathBuf,
    /// Further directories of the same kind, best on other disks. Every key is durable in all of them before it is used.
    pub copies: Vec<PathBuf>,
}

/// A custodian over a directory and its copies. Every file operation runs on tokio's blocking threads.
#[derive(Clone, Debug)]
pub struct Directory {
    copies: Arc<Copies>,
}

/// All copies, the primary first: keys are put in this order and destroyed in the other.
#[derive(Debug)]
struct Copies {
    folders: Vec<Folder>,
    seal: Seal,
}

/// What [`Directory::examine`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// How many keys there are.
    pub keys: usize,
    /// Those of which some copy is not encrypted, sorted.
    pub plain: Vec<KeyPairName>,
}

impl Directory {
    /// Opens the directories, makes those that are missing (mode 0700, not their parents), and removes what killed
    /// writers left. Refused: a symbolic link, a directory that others than its owner may enter, one named twice.
    pub async fn open(settings: Settings) -> Result<Self, CustodyError> {
        Self::with(settings, None).await
    }

    /// The same; new keys are encrypted with this passphrase. Plain ones that are there stay as they are, and readable.
    pub async fn sealed(settings: Settings, passphrase: SecretString) -> Result<Self, CustodyError> {
        Self::with(settings, Some(passphrase)).await
    }

    async fn with(settings: Settings, passphrase: Option<SecretString>) -> Result<Self, CustodyError> {
        blocking(move || {
            let mut folders: Vec<Folder> = Vec::new();
            let mut seen = Vec::new();
            for path in std::iter::once(&settings.directory).chain(&settings.copies) {
                let folder = Folder::open(path)?;
                let identity = folder.identity()?;
                if seen.contains(&identity) {
                    return Err(damaged(path, "is named twice in custody's settings: a copy of itself is no copy"));
                }
                seen.push(identity);
                folders.push(folder);
            }
            Ok(Self { copies: Arc::new(Copies { folders, seal: Seal::new(passphrase) }) })
        })
        .await
    }

    /// Which keys are kept plain. Of the encrypted ones the first and the last by name, so the oldest and the newest, are
    /// opened: a passphrase that is not theirs is an error.
    pub async fn examine(&self) -> Result<Examined, CustodyError> {
        self.run(None, Copies::examine).await
    }

    async fn run<T: Send + 'static>(
        &self,
        name: Option<&KeyPairName>,
        work: impl FnOnce(&Copies) -> Result<T, CustodyError> + Send + 'static,
    ) -> Result<T, CustodyError> {
        name.map_or(Ok(()), check_name)?;
        let copies = Arc::clone(&self.copies);
        blocking(move || work(&copies)).await
    }
}

/// Runs blocking work to its end, even if the caller is dropped meanwhile.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CustodyError> + Send + 'static,
) -> Result<T, CustodyError> {
    let lost = |error: tokio::task::JoinError| CustodyError::Io {
        place: "custody".to_string(),
        source: std::io::Error::other(if error.is_panic() { "a file operation panicked" } else { "shutting down" }),
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// Chance for one encryption.
fn chance() -> Result<[u8; CHANCE], CustodyError> {
    let mut chance = [0; CHANCE];
    aws_lc_rs::rand::fill(&mut chance).map_err(|_| CustodyError::Failed {
        place: "custody".to_string(),
        problem: "the system gives no chance to encrypt with".to_string(),
    })?;
    Ok(chance)
}

impl Copies {
    /// What each copy holds under this name, in order.
    fn read(&self, name: &str) -> Result<Vec<Option<Zeroizing<String>>>, CustodyError> {
        self.folders.iter().map(|folder| folder.read(name)).collect()
    }

    /// Publishes a text in every copy that holds none; those that hold one are read back and synced as they are.
    fn publish(&self, name: &str, held: &[Option<Zeroizing<String>>], text: &str) -> Result<(), CustodyError> {
        let mut both = self.folders.iter().zip(held);
        both.try_for_each(|(folder, held)| folder.publish(name, held.as_ref().map_or(text, |held| held.as_str())))
    }

    /// Why a file is no key, as an error that names it.
    fn shut(&self, folder: &Folder, name: &str, why: Shut) -> CustodyError {
        let path = folder.file(name);
        match why {
            Shut::Locked(_) => CustodyError::Failed { place: path.display().to_string(), problem: why.to_string() },
            Shut::Broken(_) => damaged(&path, why.to_string()),
        }
    }

    fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        // All are read before any is written: another key of that name leaves no trace of this one.
        let held = self.read(name.as_str())?;
        let mut first: Option<&Zeroizing<String>> = None;
        for (folder, text) in self.folders.iter().zip(&held) {
            let Some(text) = text else { continue };
            // Copies are the same to the byte as a rule, and opening one has its price.
            if first != Some(text) && !self.holds(folder, name, text, key)? {
                return Err(CustodyError::Exists(name.clone()));
            }
            first = first.or(Some(text));
        }
        let text = match first {
            Some(text) => text.clone(),
            None => self
                .with_the_others_passphrase()?
                .close(key, &chance()?)
                .map_err(|why| self.shut(&self.folders[0], name.as_str(), why))?,
        };
        self.publish(name.as_str(), &held, &text)
    }

    /// The seal, if it opens the newest key that is encrypted: with two passphrases some keys would be shut whatever the
    /// config file says.
    fn with_the_others_passphrase(&self) -> Result<&Seal, CustodyError> {
        if !self.seal.encrypts() {
            return Ok(&self.seal);
        }
        for name in self.list()?.iter().rev() {
            let held = self.read(name.as_str())?;
            let shut = self.folders.iter().zip(held).find_map(|(folder, text)| Some((folder, text?)));
            let Some((folder, text)) = shut.filter(|(_, text)| is_encrypted(text)) else { continue };
            match self.seal.open(text) {
                Err(why @ Shut::Locked(_)) => return Err(self.shut(folder, name.as_str(), why)),
                _ => break,
            }
        }
        Ok(&self.seal)
    }

    /// Whether the text in this copy keeps this key; what is no key keeps none.
    fn holds(
        &self,
        folder: &Folder,
        name: &KeyPairName,
        text: &Zeroizing<String>,
        key: &PrivateKey,
    ) -> Result<bool, CustodyError> {
        match self.seal.holds(text, key) {
            Err(Shut::Broken(_)) => Ok(false),
            word => word.map_err(|why| self.shut(folder, name.as_str(), why)),
        }
    }

    /// The text that all copies agree on; copies that miss it are tolerated if `lenient`.
    fn agreed(&self, name: &str, lenient: bool) -> Result<Option<Zeroizing<String>>, CustodyError> {
        let held = self.read(name)?;
        let Some((first, text)) = held.iter().enumerate().find_map(|(at, text)| Some((at, text.as_ref()?))) else {
            return Ok(None);
        };
        let source = self.folders[first].file(name);
        for (folder, other) in self.folders.iter().zip(&held) {
            let path = folder.file(name);
            let agrees = match other.as_ref().map_or(Ok(true), |other| self.seal.agree(text, other)) {
                Err(Shut::Broken(_)) => false,
                word => word.map_err(|why| self.shut(folder, name, why))?,
            };
            match other {
                Some(_) if !agrees => {
                    let way_on = format!(
                        "differs from {}: find out which is right (ssh-keygen -y -f FILE prints the public half that \
                         the cloud shows), move the wrong one away, then cp -p the right one there",
                        source.display()
                    );
                    return Err(damaged(&path, way_on));
                }
                None if !lenient => {
                    let way_on = format!(
                        "is missing, but {0} is there: see that the disk is mounted, then cp -p {0} {1}",
                        source.display(),
                        path.display()
                    );
                    return Err(damaged(&path, way_on));
                }
                _ => {}
            }
        }
        Ok(Some(text.clone()))
    }

    fn get(&self, name: &KeyPairName, complete: bool) -> Result<PrivateKey, CustodyError> {
        let text = self.agreed(name.as_str(), complete)?.ok_or_else(|| CustodyError::Missing(name.clone()))?;
        // All copies agree, so the primary stands for all.
        let key = self.seal.open(text.clone()).map_err(|why| self.shut(&self.folders[0], name.as_str(), why))?;
        if complete {
            self.publish(name.as_str(), &self.read(name.as_str())?, &text)?;
        }
        Ok(key)
    }

    /// The names of the keys in one copy, sorted.
    fn names_in(folder: &Folder) -> Result<Vec<KeyPairName>, CustodyError> {
        let mut names: Vec<_> = folder.entries()?.into_iter().map(KeyPairName::new).collect();
        names.retain(|name| check_name(name).is_ok());
        names.sort();
        Ok(names)
    }

    fn examine(&self) -> Result<Examined, CustodyError> {
        let names = self.list()?;
        let (mut plain, mut shut) = (Vec::new(), Vec::new());
        for name in &names {
            let held = self.read(name.as_str())?;
            match held.iter().flatten().all(|text| is_encrypted(text)) {
                true => shut.push(name),
                false => plain.push(name.clone()),
            }
        }
        for name in shut.first().into_iter().chain(shut.last()) {
            self.get(name, false)?;
        }
        Ok(Examined { keys: names.len(), plain })
    }

    fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        let mut names = Vec::new();
        for folder in &self.folders {
            names.extend(Self::names_in(folder)?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        // The primary last: until it is gone, a repetition finds that there is something left to do.
        self.folders.iter().rev().try_for_each(|folder| folder.remove(name.as_str()))
    }

    fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        let held = self.agreed(MARK_FILE, true)?;
        if held.is_some() {
            self.refuse_an_empty_copy()?;
        }
        let text = held.unwrap_or_else(|| Zeroizing::new(format!("{}\n", fresh.as_str())));
        let mark = self.read_mark(&text)?;
        self.publish(MARK_FILE, &self.read(MARK_FILE)?, &text)?;
        Ok(mark)
    }

    fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        self.agreed(MARK_FILE, true)?.map(|text| self.read_mark(&text)).transpose()
    }

    fn read_mark(&self, text: &str) -> Result<Mark, CustodyError> {
        Mark::try_from(text.trim_end().to_string()).map_err(|problem| {
            damaged(&self.folders[0].file(MARK_FILE), format!("{problem}: restore it from a backup"))
        })
    }

    /// A copy with neither mark nor keys beside one with both is a disk that is not mounted, or a new one that has no
    /// keys yet. Neither may pass for a copy.
    fn refuse_an_empty_copy(&self) -> Result<(), CustodyError> {
        let known = self.list()?;
        for folder in &self.folders {
            if folder.read(MARK_FILE)?.is_none() && !known.is_empty() && Self::names_in(folder)?.is_empty() {
                let full = self.folders.iter().find(|other| Self::names_in(other).is_ok_and(|names| !names.is_empty()));
                let from = full.map_or_else(|| "the full copy".to_string(), |full| full.path().display().to_string());
                let place = folder.path().display();
                let way_on = format!("is empty, but {from} is not: mount it, or if it is new: cp -p {from}/* {place}/");
                return Err(damaged(folder.path(), way_on));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Custodian for Directory {
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        let (to, key) = (name.clone(), key.clone());
        self.run(Some(name), move |copies| copies.put(&to, &key)).await
    }

    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        let from = name.clone();
        self.run(Some(name), move |copies| copies.get(&from, false)).await
    }

    async fn complete(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        let from = name.clone();
        self.run(Some(name), move |copies| copies.get(&from, true)).await
    }

    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        self.run(None, Copies::list).await
    }

    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        let from = name.clone();
        self.run(Some(name), move |copies| copies.destroy(&from)).await
    }

    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        self.run(None, move |copies| copies.mark(fresh)).await
    }

    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        self.run(None, Copies::kept_mark).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn name() -> KeyPairName {
        KeyPairName::new("rka_one")
    }

    fn mark(text: &str) -> Mark {
        Mark::try_from(text.to_string()).unwrap()
    }

    /// A primary and two copies under `root`.
    fn three(root: &Path) -> Settings {
        Settings { directory: root.join("a"), copies: vec![root.join("b"), root.join("c")] }
    }

    /// The places that `three` names.
    const PLACES: [&str; 3] = ["a", "b", "c"];

    /// A refusal must be `Damaged` and say each of these.
    #[track_caller]
    fn says<T: std::fmt::Debug>(result: Result<T, CustodyError>, words: &[&str]) {
        let error = result.unwrap_err();
        assert!(matches!(error, CustodyError::Damaged { .. }), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} lacks {word:?}");
        }
    }

    /// Writes a key file as custody would have.
    fn plant(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        set_mode(path, 0o600);
    }

    #[tokio::test]
    async fn directories_are_0700_and_files_0600_and_nothing_else_is_left() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();
        custody.put(&name(), &PrivateKey::sample(2)).await.unwrap_err();
        custody.mark(mark("a7f3")).await.unwrap();
        for place in PLACES {
            let place = root.path().join(place);
            assert_eq!(mode(&place), 0o700);
            let mut files: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            files.sort();
            assert_eq!(files, ["installation", "rka_one"]);
            for file in files {
                assert_eq!(mode(&place.join(file)), 0o600);
            }
            assert_eq!(fs::read_to_string(place.join("rka_one")).unwrap(), PrivateKey::sample(1).expose());
            assert_eq!(fs::read_to_string(place.join("installation")).unwrap(), "a7f3\n");
        }
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();
        assert_eq!(custody.kept_mark().await.unwrap(), None);
        custody.mark(mark("a")).await.unwrap();
        drop(custody);
        let custody = Directory::open(three(root.path())).await.unwrap();
        assert_eq!(custody.get(&name()).await.unwrap().expose(), PrivateKey::sample(1).expose());
        assert_eq!(custody.kept_mark().await.unwrap(), Some(mark("a")));
        assert_eq!(custody.mark(mark("b")).await.unwrap(), mark("a"));
    }

    #[tokio::test]
    async fn a_directory_that_others_may_enter_is_refused_with_the_way_on() {
        for loose in [0o755, 0o750, 0o701, 0o770] {
            for place in PLACES {
                let root = tempfile::tempdir().unwrap();
                let path = root.path().join(place);
                fs::create_dir(&path).unwrap();
                set_mode(&path, loose);
                says(Directory::open(three(root.path())).await, &[&format!("chmod 700 {}", path.display())]);
                set_mode(&path, 0o700);
                Directory::open(three(root.path())).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn links_files_and_the_same_directory_twice_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let (real, link, file) = (root.path().join("real"), root.path().join("link"), root.path().join("file"));
        Directory::open(Settings { directory: real.clone(), copies: Vec::new() }).await.unwrap();
        symlink(&real, &link).unwrap();
        fs::write(&file, "").unwrap();
        let open = |directory: &Path, copy: &Path| {
            Directory::open(Settings { directory: directory.to_path_buf(), copies: vec![copy.to_path_buf()] })
        };
        says(open(&link, &real).await, &["symbolic link"]);
        says(open(&link.join(""), &real).await, &["symbolic link"]);
        says(open(&real, &file).await, &["is no directory"]);
        says(open(&real, &real.join("../real")).await, &["named twice"]);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_or_has_gone_is_an_io_error_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("not-mounted/keys");
        let error = Directory::open(Settings { directory: nowhere.clone(), copies: Vec::new() }).await.unwrap_err();
        assert!(matches!(&error, CustodyError::Io { place, .. } if *place == nowhere.display().to_string()), "{error}");

        // A copy that goes away is never taken for one that holds nothing.
        let custody = Directory::open(three(root.path())).await.unwrap();
        fs::remove_dir_all(root.path().join("c")).unwrap();
        let key = PrivateKey::sample(1);
        let gone = root.path().join("c").display().to_string();
        for error in [
            custody.put(&name(), &key).await.unwrap_err(),
            custody.get(&name()).await.unwrap_err(),
            custody.list().await.unwrap_err(),
            custody.destroy(&name()).await.unwrap_err(),
            custody.mark(mark("a")).await.unwrap_err(),
        ] {
            assert!(matches!(&error, CustodyError::Io { place, .. } if *place == gone), "{error:?}");
        }
        assert!(!root.path().join("a/rka_one").exists());
    }

    #[tokio::test]
    async fn a_put_killed_after_any_copy_is_completed_by_the_same_key_and_refused_to_another() {
        for reached in [&["a"][..], &["a", "b"], &["b"], &["c"]] {
            let root = tempfile::tempdir().unwrap();
            let custody = Directory::open(three(root.path())).await.unwrap();
            let key = PrivateKey::sample(1);
            for place in reached {
                plant(&root.path().join(place).join("rka_one"), key.expose());
            }
            let lacking = PLACES.iter().find(|place| !reached.contains(place)).unwrap();
            let lacking = root.path().join(lacking).join("rka_one");
            says(custody.get(&name()).await, &["is missing", "cp -p", &lacking.display().to_string()]);
            assert_eq!(custody.list().await.unwrap(), [name()]);
            let refused = custody.put(&name(), &PrivateKey::sample(2)).await;
            assert!(matches!(refused, Err(CustodyError::Exists(_))), "{refused:?}");
            assert!(!lacking.exists(), "a refused put left a trace");
            custody.put(&name(), &key).await.unwrap();
            assert_eq!(custody.get(&name()).await.unwrap().expose(), key.expose());
        }
    }

    #[tokio::test]
    async fn a_put_killed_together_with_its_maker_is_completed_from_the_copies_it_reached() {
        for reached in PLACES {
            let root = tempfile::tempdir().unwrap();
            let custody = Directory::open(three(root.path())).await.unwrap();
            plant(&root.path().join(reached).join("rka_one"), PrivateKey::sample(1).expose());
            assert_eq!(custody.complete(&name()).await.unwrap().expose(), PrivateKey::sample(1).expose());
            assert_eq!(custody.get(&name()).await.unwrap().expose(), PrivateKey::sample(1).expose());
            for place in PLACES {
                assert_eq!(mode(&root.path().join(place).join("rka_one")), 0o600);
            }
        }
    }

    #[tokio::test]
    async fn a_damaged_copy_is_named_and_never_answered_for() {
        let check = async |place: &str, damage: &dyn Fn(&Path), words: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            let custody = Directory::open(three(root.path())).await.unwrap();
            custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();
            let path = root.path().join(place).join("rka_one");
            damage(&path);
            let mut all = vec![path.to_str().unwrap()];
            all.extend(words);
            says(custody.get(&name()).await, &all);
            says(custody.complete(&name()).await, &all);
        };
        let other = |path: &Path| plant(path, PrivateKey::sample(2).expose());
        check("b", &other, &["differs from"]).await;
        check("c", &other, &["differs from"]).await;
        check("c", &|path| plant(path, ""), &["differs from"]).await;
        check("c", &|path| plant(path, &PrivateKey::sample(1).expose()[..100]), &["differs from"]).await;
        check("b", &|path| fs::write(path, [0xff, 0xfe]).unwrap(), &["no text"]).await;
        check("b", &|path| fs::write(path, vec![b'a'; 70_000]).unwrap(), &["70000 bytes"]).await;
        check("b", &|path| set_mode(path, 0o644), &["chmod 600"]).await;
        let to_link = |path: &Path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            symlink(path.with_extension("moved"), path).unwrap();
        };
        check("a", &to_link, &["no regular file"]).await;
        let to_directory = |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        };
        check("a", &to_directory, &["no regular file"]).await;
    }

    #[tokio::test]
    async fn the_same_rubbish_in_every_copy_is_no_key_and_its_text_is_not_told() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        for place in PLACES {
            plant(&root.path().join(place).join("rka_one"), "rubbish");
        }
        for error in [custody.get(&name()).await.unwrap_err(), custody.complete(&name()).await.unwrap_err()] {
            assert!(matches!(error, CustodyError::Damaged { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("rubbish"));
        }
    }

    #[tokio::test]
    async fn a_destroy_killed_half_way_is_completed_by_a_repetition() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();
        fs::remove_file(root.path().join("c/rka_one")).unwrap();
        assert_eq!(custody.list().await.unwrap(), [name()]);
        custody.destroy(&name()).await.unwrap();
        assert!(custody.list().await.unwrap().is_empty());
        assert!(matches!(custody.get(&name()).await, Err(CustodyError::Missing(_))));
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_removed_at_the_next_start_and_a_living_ones_file_stays() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        let (dead, alive) = (root.path().join("b/.tmp-1-7"), root.path().join("b/.tmp-2-0"));
        plant(&dead, PrivateKey::sample(1).expose());
        plant(&alive, PrivateKey::sample(2).expose());
        let writer = fs::File::open(&alive).unwrap();
        writer.try_lock().unwrap();
        assert!(custody.list().await.unwrap().is_empty());
        drop(custody);
        let custody = Directory::open(three(root.path())).await.unwrap();
        assert!(!dead.exists() && alive.exists());
        drop(writer);
        Directory::open(three(root.path())).await.unwrap();
        assert!(!alive.exists());
        custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();
    }

    #[tokio::test]
    async fn twenty_writers_of_one_name_leave_one_whole_key_in_every_copy() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        let writers: Vec<_> = (0..20_u8)
            .map(|seed| {
                let custody = custody.clone();
                tokio::spawn(async move { custody.put(&name(), &PrivateKey::sample(seed)).await.is_ok() })
            })
            .collect();
        let mut won = Vec::new();
        for (seed, writer) in writers.into_iter().enumerate() {
            if writer.await.unwrap() {
                won.push(seed as u8);
            }
        }
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(custody.get(&name()).await.unwrap().expose(), PrivateKey::sample(won[0]).expose());
    }

    #[tokio::test]
    async fn the_copies_agree_on_one_mark() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();

        // Killed after the first copy: completed, and the fresh one is not taken.
        plant(&root.path().join("a/installation"), "a7f3\n");
        assert_eq!(custody.mark(mark("other")).await.unwrap(), mark("a7f3"));
        for place in PLACES {
            assert_eq!(fs::read_to_string(root.path().join(place).join("installation")).unwrap(), "a7f3\n");
        }

        let odd = root.path().join("b/installation");
        plant(&odd, "b\n");
        says(custody.mark(mark("x")).await, &["b/installation", "differs from"]);
        for place in PLACES {
            plant(&root.path().join(place).join("installation"), "NOT A MARK\n");
        }
        says(custody.mark(mark("x")).await, &["a/installation", "no installation mark"]);
    }

    #[tokio::test]
    async fn an_empty_copy_beside_a_full_one_is_not_mounted_or_new_and_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let alone = Settings { directory: root.path().join("a"), copies: Vec::new() };
        let custody = Directory::open(alone).await.unwrap();
        custody.mark(mark("a7f3")).await.unwrap();
        custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();

        let custody = Directory::open(three(root.path())).await.unwrap();
        says(custody.mark(mark("x")).await, &["/b: is empty", "mount it", "cp -p"]);
        for place in ["b", "c"] {
            let way_on = format!("cp -p {0}/a/* {0}/{place}/", root.path().display());
            assert!(std::process::Command::new("sh").args(["-c", &way_on]).status().unwrap().success());
        }
        assert_eq!(custody.mark(mark("x")).await.unwrap(), mark("a7f3"));
        assert_eq!(custody.get(&name()).await.unwrap().public(), PrivateKey::sample(1).public());
    }

    /// `ssh-keygen` with these arguments and this file.
    fn keygen(arguments: &[&str], file: &Path) -> std::process::Output {
        std::process::Command::new("ssh-keygen").args(arguments).arg("-f").arg(file).output().unwrap()
    }

    #[tokio::test]
    async fn openssh_opens_an_encrypted_file_with_the_passphrase_and_custody_one_that_openssh_encrypted() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::sealed(three(root.path()), "a phrase".into()).await.unwrap();
        let (key, file) = (PrivateKey::sample(9), |place: &str| root.path().join(place).join("rka_one"));
        custody.put(&name(), &key).await.unwrap();
        for place in PLACES {
            assert_eq!(mode(&file(place)), 0o600);
            assert_eq!(fs::read(file(place)).unwrap(), fs::read(file("a")).unwrap(), "encrypted once");
            let told = keygen(&["-y", "-P", "a phrase"], &file(place));
            let line = String::from_utf8(told.stdout).unwrap();
            assert_eq!(crate::model::PublicKey::parse(&line).unwrap(), *key.public());
            assert!(!keygen(&["-y", "-P", "another"], &file(place)).status.success());
        }
        // Encrypted anew by a person, and one laid open: still the same key.
        assert!(keygen(&["-p", "-P", "a phrase", "-N", "a phrase"], &file("b")).status.success());
        assert_ne!(fs::read(file("b")).unwrap(), fs::read(file("a")).unwrap());
        assert!(keygen(&["-p", "-P", "a phrase", "-N", ""], &file("c")).status.success());
        assert_eq!(custody.get(&name()).await.unwrap().expose(), key.expose());
        custody.put(&name(), &key).await.unwrap();
        assert_eq!(custody.complete(&name()).await.unwrap().expose(), key.expose());
        let refused = custody.put(&name(), &PrivateKey::sample(8)).await;
        assert!(matches!(refused, Err(CustodyError::Exists(_))), "{refused:?}");
        let examined = custody.examine().await.unwrap();
        assert_eq!((examined.keys, examined.plain), (1, vec![name()]));
        plant(&file("c"), PrivateKey::sample(8).expose());
        says(custody.get(&name()).await, &["c/rka_one", "differs from"]);
    }

    #[tokio::test]
    async fn plain_keys_live_on_beside_encrypted_ones_and_a_wrong_passphrase_takes_none_for_lost() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (name(), KeyPairName::new("rka_two"));
        let (first, second) = (PrivateKey::sample(1), PrivateKey::sample(2));
        Directory::open(three(root.path())).await.unwrap().put(&old, &first).await.unwrap();
        let custody = Directory::sealed(three(root.path()), "right".into()).await.unwrap();
        custody.put(&new, &second).await.unwrap();
        assert_eq!(custody.get(&old).await.unwrap().expose(), first.expose());
        assert_eq!(custody.get(&new).await.unwrap().expose(), second.expose());
        assert_eq!(custody.examine().await.unwrap(), Examined { keys: 2, plain: vec![old.clone()] });

        let wrong = Directory::sealed(three(root.path()), "wrong".into()).await.unwrap();
        let none = Directory::open(three(root.path())).await.unwrap();
        for (custody, words) in [(wrong, "does not open it"), (none, "names no passphrase")] {
            for result in [
                custody.get(&new).await.map(drop),
                custody.complete(&new).await.map(drop),
                custody.put(&new, &second).await,
                custody.put(&new, &first).await,
                custody.examine().await.map(drop),
            ] {
                let error = result.unwrap_err();
                assert!(matches!(error, CustodyError::Failed { .. }) && error.to_string().contains(words), "{error:?}");
                assert!(error.to_string().contains("a/rka_two"), "{error}");
            }
            assert_eq!(custody.get(&old).await.unwrap().expose(), first.expose());
            assert_eq!(custody.list().await.unwrap(), [old.clone(), new.clone()], "a list opens nothing");
        }
        let wrong = Directory::sealed(three(root.path()), "wrong".into()).await.unwrap();
        let error = wrong.put(&KeyPairName::new("rka_three"), &first).await.unwrap_err();
        assert!(error.to_string().contains("a/rka_two: the passphrase"), "no key with a second passphrase: {error}");
        assert_eq!(custody.list().await.unwrap(), [old.clone(), new.clone()]);
        custody.destroy(&new).await.unwrap();
        assert_eq!(custody.list().await.unwrap(), [old]);
    }

    #[tokio::test]
    async fn openssh_reads_the_files_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        let custody = Directory::open(three(root.path())).await.unwrap();
        let key = PrivateKey::sample(9);
        custody.put(&name(), &key).await.unwrap();
        for place in PLACES {
            let path = root.path().join(place).join("rka_one");
            let told = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().unwrap();
            assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
            let line = String::from_utf8(told.stdout).unwrap();
            assert_eq!(crate::model::PublicKey::parse(&line).unwrap(), *key.public());
        }
    }
}
