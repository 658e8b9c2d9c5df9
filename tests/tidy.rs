//! The house rules (src/docs/architecture.md), checked by reading the sources: who may import whom, what may be named
//! where, how long a file may be, and that the tree which the page draws is the tree on disk.
//!
//! It reads lines, not syntax: it leans on rustfmt, and leaves out comments and whatever stands under `#[cfg(test)]`.
//! An exception is named in one of the tables below, with its reason, or it is none.

#![allow(clippy::unwrap_used)] // tests are exempt, but clippy sees that in test functions only

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms and their floors: imports go down only, and never from room to room on one floor.
/// `sim` stands beside the house; see [`may_import`].
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("clock", 0),
    ("net", 1),
    ("program", 1),
    ("rotation", 1),
    ("provider", 2),
    ("custody", 2),
    ("ssh", 2),
    ("files", 2),
    ("hook", 2),
    ("store", 2),
    ("engine", 3),
    ("scheduler", 4),
    ("config", 5),
    ("telemetry", 5),
    ("daemon", 6),
    ("cli", 7),
    ("main", 8),
    ("sim", SIDE_WING),
];
const SIDE_WING: u8 = 99;

/// A word that may be named only in some places.
struct Kept {
    what: &'static str,
    words: &'static [&'static str],
    /// Files, or folders with a `/` at the end, under src/.
    only: &'static [&'static str],
}

const KEPT: &[Kept] = &[
    Kept {
        what: "the time is asked, and slept through, only in clock.rs",
        words: &[
            "Timestamp::now",
            "Zoned::now",
            "SystemTime",
            "Instant::now",
            "tokio::time",
            "thread::sleep",
            "sleep(",
        ],
        only: &["clock.rs"],
    },
    Kept {
        what: "the network is reached only through net.rs and ssh/, and served on loopback by sim/serve.rs, sim/guest/lanes.rs and telemetry/",
        words: &[
            "reqwest",
            "axum",
            "hyper",
            "tokio::net",
            "TcpListener",
            "TcpStream",
            "TcpSocket",
            "UdpSocket",
            "ToSocketAddrs",
        ],
        only: &["net.rs", "ssh/", "sim/serve.rs", "sim/guest/lanes.rs", "telemetry/"],
    },
    Kept {
        what: "programs are started only by program.rs and sim/guest/sshd.rs",
        words: &["process::Command", "Command::new"],
        only: &["program.rs", "sim/guest/sshd.rs"],
    },
    Kept {
        what: "SQL is spoken only in store",
        words: &["sqlx", "SELECT ", "INSERT INTO", "DELETE FROM", "CREATE TABLE"],
        only: &["store/"],
    },
    Kept {
        // main.rs: the arguments.
        what: "the environment is read only in config",
        words: &["std::env", "env::var"],
        only: &["config/", "main.rs"],
    },
    Kept {
        what: "private keys are handled only where they are made, kept, proven and stored",
        words: &["PrivateKey"],
        only: &["model/", "custody/", "ssh/", "engine/act/", "engine/guard.rs"],
    },
    Kept {
        what: "nothing ends in a panic, nothing is left undone",
        words: &[".unwrap()", ".expect(", "panic!(", "todo!", "unimplemented!", "dbg!", "#[ignore", "unsafe "],
        only: &[],
    },
];

/// What a room may never name.
const BANNED: &[(&str, &str, &[&str])] = &[
    (
        "rotation",
        "the brain is pure: no async, no clock, no I/O, no order by luck",
        &[
            "async",
            "await",
            "tokio",
            "HashMap",
            "HashSet",
            "crate::clock",
            "SystemClock",
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "std::thread",
            "rand",
        ],
    ),
    (
        "engine",
        "the hands know traits only: no cloud, no database, no file",
        &["tencent", "alibaba", "baidu", "lighthouse", "cvm", "ecs", "bcc", "Sqlite", "Directory", "std::fs", "http"],
    ),
];

/// Names that say nothing (no `Manager`, no `Helper`).
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Util", "Utils", "Service", "Impl"];

/// The most lines of a file without its tests.
const LINES_MAX: usize = 400;
/// Files that are longer, and how long they may be. To be split, not to grow.
const LONG: &[(&str, usize)] = &[];
/// `next.rs` fits on three screens.
const NEXT_MAX: usize = 200;

/// A source file, without comments and tests.
struct Source {
    /// Under src/.
    path: String,
    /// Number and text of each line of code.
    code: Vec<(usize, String)>,
    /// How many lines it has without its tests, comments included.
    lines: usize,
    /// Whether its first line says what it is.
    introduced: bool,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let (mut code, mut lines) = (Vec::new(), 0);
        let mut under_test: Option<usize> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if let Some(of) = under_test {
                // The item ends with its closing brace, or with a semicolon if it has none.
                let end = indent == of && (line.trim_start().starts_with('}') || line.ends_with([';', ',']));
                let whole = indent == of && line.ends_with('}') && !line.trim_start().starts_with('#');
                if end || whole {
                    under_test = None;
                }
                continue;
            }
            if line.trim() == "#[cfg(test)]" {
                under_test = Some(indent);
                continue;
            }
            lines += 1;
            if !line.trim_start().starts_with("//") {
                let line = line.split(" // ").next().unwrap_or(line);
                code.push((number + 1, line.to_string()));
            }
        }
        Self { path: path.to_string(), code, lines, introduced: text.starts_with("//!") }
    }

    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or(&self.path);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// What is imported from the house: (line, `room::rest`).
    fn imports(&self) -> Vec<(usize, String)> {
        let root = if self.room() == "main" { "rekeyd::" } else { "crate::" };
        let mut found = Vec::new();
        for (at, (number, line)) in self.code.iter().enumerate() {
            for (start, _) in line.match_indices(root) {
                let rest = &line[start + root.len()..];
                if !rest.starts_with('{') {
                    let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len());
                    found.push((*number, rest[..end].to_string()));
                    continue;
                }
                // A group: each name at its first level.
                let text: String = self.code[at..].iter().map(|(_, line)| line.as_str()).collect();
                let group = text.split_once(&format!("{root}{{")).map_or("", |(_, group)| group);
                let (mut depth, mut name) = (0, String::new());
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push((*number, std::mem::take(&mut name).trim().to_string())),
                        _ if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
                found.push((*number, name.trim().to_string()));
            }
        }
        found.retain(|(_, path)| !path.is_empty());
        found
    }

    /// Each rule that this file breaks, in words.
    fn breaks(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut say = |line: usize, what: String| broken.push(format!("src/{}:{line}: {what}", self.path));
        if !self.introduced {
            say(1, "a file begins with `//!`: what it is, and what it must never do".into());
        }
        let most = LONG.iter().find(|(path, _)| *path == self.path).map_or(LINES_MAX, |(_, most)| *most);
        let most = if self.path == "rotation/next.rs" { NEXT_MAX } else { most };
        if self.lines > most {
            say(1, format!("{} lines without its tests, at most {most}", self.lines));
        }
        for (line, path) in self.imports() {
            let to = path.split("::").next().unwrap_or_default();
            if let Err(why) = may_import(self.room(), &path) {
                say(line, format!("{} imports {to}: {why}", self.room()));
            }
        }
        for (line, text) in &self.code {
            for kept in KEPT {
                let here = kept
                    .only
                    .iter()
                    .any(|only| *only == self.path || (only.ends_with('/') && self.path.starts_with(only)));
                if let Some(word) = kept.words.iter().find(|word| !here && names(text, word)) {
                    say(*line, format!("{word}: {}", kept.what));
                }
            }
            for (_, what, words) in BANNED.iter().filter(|(room, ..)| *room == self.room()) {
                if let Some(word) = words.iter().find(|word| names(text, word)) {
                    say(*line, format!("{word}: {what}"));
                }
            }
            for keyword in ["struct ", "enum ", "trait ", "type ", "mod "] {
                let name = text.trim_start().trim_start_matches("pub ").strip_prefix(keyword);
                let name = name.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
                if let Some(end) = name
                    .and_then(|name| EMPTY_NAMES.iter().find(|end| name.ends_with(*end) || name == end.to_lowercase()))
                {
                    say(*line, format!("a name that ends in {end} says nothing"));
                }
            }
        }
        broken
    }
}

/// Whether the code of a line names this, as a whole word where it begins or ends with a letter. Texts in quotes do
/// not count, but for SQL, which is nowhere else.
fn names(line: &str, word: &str) -> bool {
    let sql = word.chars().all(|c| c.is_ascii_uppercase() || c == ' ');
    let line = if sql { line.to_string() } else { unquoted(line) };
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !(part(before) && part(word.chars().next()) || part(after) && part(word.chars().next_back()))
    })
}

/// The line without what stands between its quotes.
fn unquoted(line: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Whether a room may import this path (`room::rest`).
fn may_import(room: &str, path: &str) -> Result<(), String> {
    let to = path.split("::").next().unwrap_or_default();
    let Some(there) = floor(to) else { return Err(format!("there is no room {to}")) };
    let Some(here) = floor(room) else { return Err(format!("the room {room} has no floor")) };
    if room == to {
        return Ok(());
    }
    if room == "sim" {
        let common = ["model", "clock", "net"].contains(&to);
        return if common {
            Ok(())
        } else {
            Err("sim shares nothing with the house but its words and the transport".into())
        };
    }
    if to == "sim" {
        return if here >= 6 { Ok(()) } else { Err("only what starts the program knows the simulator".into()) };
    }
    if to == "config" && here < 6 {
        return Err("no room reads config: it fills each room's own Settings".into());
    }
    if to == "rotation" && here == 2 && room != "store" {
        return Err("on its floor store alone knows rotation".into());
    }
    if there >= here {
        return Err(format!("imports go down the floors only, and this goes from {here} to {there}"));
    }
    Ok(())
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file under a folder, by its path from there, with `/`.
fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), path);
            }
        }
    }
    found
}

/// The Rust files that are tests as a whole: declared with `mod x;` under `#[cfg(test)]`.
fn test_files(files: &BTreeMap<String, PathBuf>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, file) in files.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
            let named = lines[at + 1..].iter().find_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            let named = named.filter(|_| lines[at + 1].starts_with("#[path"));
            let item = lines[at + 1..].iter().find(|line| !line.starts_with('#')).copied().unwrap_or_default();
            let Some(name) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")).map(|(_, name)| name)
            else {
                continue;
            };
            let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            let stem = path.strip_suffix(".rs").unwrap();
            let candidates = match named {
                Some(named) => vec![format!("{folder}{named}")],
                None => {
                    vec![format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs"), format!("{stem}/{name}.rs")]
                }
            };
            let there: Vec<_> = candidates.into_iter().filter(|path| files.contains_key(path)).collect();
            assert!(!there.is_empty(), "src/{path}: the file of `mod {name}` is not found");
            for path in there {
                // A folder of tests is tests to the last file.
                let folder = path.strip_suffix("mod.rs").map(str::to_string);
                found.extend(
                    files.keys().filter(|path| folder.as_ref().is_some_and(|of| path.starts_with(of))).cloned(),
                );
                found.insert(path);
            }
        }
    }
    found
}

#[test]
fn the_sources_keep_the_house_rules() {
    let files = files(&src());
    let tests = test_files(&files);
    let mut broken = Vec::new();
    let (mut read, mut imports) = (0, 0);
    for (path, file) in files.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let source = Source::read(path, &text);
        if tests.contains(path) {
            if !source.introduced {
                broken.push(format!("src/{path}:1: a file begins with `//!`"));
            }
            continue;
        }
        (read, imports) = (read + 1, imports + source.imports().len());
        broken.extend(source.breaks());
    }
    assert!(read > 50 && imports > 100, "only {read} files and {imports} imports were read");
    assert!(broken.is_empty(), "{} breaks:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_exception_is_still_needed() {
    for (path, most) in LONG {
        let source = Source::read(path, &std::fs::read_to_string(src().join(path)).unwrap());
        assert!(source.lines > LINES_MAX, "src/{path} has {} lines: strike it off LONG", source.lines);
        assert!(*most <= source.lines + 20, "src/{path} has {} lines: LONG allows {most}", source.lines);
    }
}

#[test]
fn every_test_file_says_what_it_is_and_none_is_ignored() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (path, file) in files(&root) {
        let text = if path.ends_with(".rs") || path.ends_with(".py") {
            std::fs::read_to_string(file).unwrap()
        } else {
            continue;
        };
        let begin = if path.ends_with(".rs") { "//!" } else { "\"\"\"" };
        assert!(text.starts_with(begin), "tests/{path} begins with {begin}");
        let skips = ["#[ignore", "unittest.skip", "skipTest", "todo!("].iter().find(|skip| text.contains(*skip));
        assert!(path == "tidy.rs" || skips.is_none(), "tests/{path}: {skips:?}");
    }
}

/// The entries of the tree in a page: path and whether a folder is drawn open.
fn drawn(page: &str) -> BTreeMap<String, bool> {
    let block = page.split("```text\n").find(|block| block.starts_with("src/\n"));
    let block = block.and_then(|block| block.split("```").next()).expect("a block of text that begins with src/");
    let (mut entries, mut path) = (BTreeMap::new(), Vec::new());
    for line in block.lines().skip(1) {
        // What has no branch goes on with the words of the line above.
        let Some(at) = line.find("├── ").or(line.find("└── ")) else { continue };
        let depth = line[..at].chars().count() / 4;
        let name = line[at + "├── ".len()..].split_whitespace().next().unwrap();
        path.truncate(depth);
        assert_eq!(path.len(), depth, "the tree jumps at {name}");
        if depth > 0 {
            entries.insert(path.concat(), true);
        }
        path.push(name.to_string());
        assert!(entries.insert(path.concat(), false).is_none(), "{name} is drawn twice");
    }
    entries
}

#[test]
fn the_tree_that_architecture_draws_is_the_tree_on_disk() {
    let files = files(&src());
    let tests = test_files(&files);
    let page = std::fs::read_to_string(src().join("docs/architecture.md")).unwrap();
    let drawn = drawn(&page);
    let mut on_disk = BTreeSet::new();
    for path in files.keys().filter(|path| !tests.contains(*path)) {
        // Each folder on the way, with a slash, and the file.
        on_disk.extend(path.match_indices('/').map(|(at, _)| path[..=at].to_string()));
        on_disk.insert(path.clone());
    }
    let parent = |path: &str| {
        let bare = path.trim_end_matches('/');
        bare.rfind('/').map_or(String::new(), |at| bare[..=at].to_string())
    };
    let mut wrong: Vec<String> = drawn
        .keys()
        .filter(|path| !on_disk.contains(*path))
        .map(|path| format!("drawn, not on disk: {path}"))
        .collect();
    for path in &on_disk {
        // src/ itself is drawn open; a folder drawn open is drawn whole, but for its own mod.rs.
        let open = parent(path).is_empty() || drawn.get(&parent(path)) == Some(&true);
        if open && !drawn.contains_key(path) && !path.ends_with("/mod.rs") {
            wrong.push(format!("on disk, not drawn: {path}"));
        }
    }
    assert!(wrong.is_empty(), "src/docs/architecture.md draws another tree:\n{}", wrong.join("\n"));
    let rooms = drawn.keys().filter(|path| parent(path).is_empty() && !["lib.rs", "docs/"].contains(&path.as_str()));
    for room in rooms {
        let room = room.trim_end_matches('/').trim_end_matches(".rs");
        assert!(floor(room).is_some(), "{room} has no floor");
    }
}

#[test]
fn each_rule_refuses_what_breaks_it() {
    let check = |path: &str, code: &str, expect: &str| {
        let broken = Source::read(path, &format!("//! A room.\n{code}\n")).breaks();
        match expect {
            "" => assert!(broken.is_empty(), "{path}: {code}: {broken:?}"),
            _ => assert!(broken.len() == 1 && broken[0].contains(expect), "{path}: {code}: {broken:?}"),
        }
    };
    check("engine/mod.rs", "use crate::rotation::Step;", "");
    check("rotation/next.rs", "use crate::provider::Instance;", "from 1 to 2");
    check("model/key.rs", "use crate::clock::Clock;", "from 0 to 0");
    check("ssh/probe.rs", "use crate::custody::Custodian;", "from 2 to 2");
    check("store/mod.rs", "use crate::rotation::Event;", "");
    check("custody/mod.rs", "use crate::rotation::Event;", "store alone");
    check("engine/mod.rs", "use crate::{\n    model::Mark,\n    daemon::{run, stop},\n};", "from 3 to 6");
    check("engine/mod.rs", "fn f() -> crate::scheduler::Due {}", "from 3 to 4");
    check("telemetry/log.rs", "use crate::config::Config;", "no room reads config");
    check("daemon.rs", "use crate::config::Config;", "");
    check("cli/demo.rs", "use crate::sim::serve;", "");
    check("main.rs", "use rekeyd::cli;", "");
    check("provider/open.rs", "use crate::sim::World;", "knows the simulator");
    check("sim/door.rs", "use crate::net::Request;", "");
    check("custody/vault.rs", "use crate::net::Transport;", "");
    check("custody/vault.rs", "use crate::provider::http::Door;", "from 2 to 2");
    check("sim/door.rs", "use crate::provider::http::retry;", "shares nothing");
    check("sim/door.rs", "use crate::engine::Tools;", "shares nothing");
    check("attic/mod.rs", "use crate::model::Mark;", "no floor");
    check("rotation/next.rs", "pub async fn next() {}", "pure");
    check("rotation/next.rs", "use std::collections::HashMap;", "pure");
    check("rotation/next.rs", "/// Not async.\nfn asynchronous() {}", "");
    check("engine/look.rs", "let x = cloud::tencent::open();", "traits only");
    check("engine/look.rs", "let now = Timestamp::now();", "clock.rs");
    check("clock.rs", "fn now() { Timestamp::now() }", "");
    check("engine/look.rs", "tokio::time::sleep(second).await;", "clock.rs");
    check("sim/serve.rs", "use tokio::net::TcpListener;", "");
    check("cli/status.rs", "use tokio::net::TcpStream;", "network");
    check("sim/guest/mod.rs", "use tokio::net::TcpStream;", "network");
    check("sim/guest/lanes.rs", "use tokio::net::{TcpListener, TcpStream};", "");
    check("sim/guest/sshd.rs", "use std::process::{Command, Stdio};\nCommand::new(sshd);", "");
    check("cli/status.rs", "std::process::Command::new(id);", "programs");
    check("main.rs", "use std::process::ExitCode;", "");
    check("provider/baidu/client.rs", "let client = reqwest::Client::new();", "network");
    check("engine/mod.rs", "let text = \"SELECT 1\";", "SQL");
    check("provider/open.rs", "let id = std::env::var(\"ID\");", "environment");
    check("config/secret.rs", "std::env::var_os(name)", "");
    check("provider/open.rs", "let name = env!(\"CARGO_PKG_NAME\");", "");
    check("provider/open.rs", "fn f(key: &PrivateKey) {}", "private keys");
    check("provider/open.rs", "json!({ \"PrivateKey\": null })", "");
    check("provider/open.rs", "let x = y.unwrap();", "panic");
    check("provider/open.rs", "let x = y.unwrap_or(1); // or .unwrap()", "");
    check("provider/open.rs", "#[cfg(test)]\nmod tests {\n    fn f() {\n        y.unwrap();\n    }\n}", "");
    check("provider/open.rs", "#[cfg(test)]\nmod tests;\nfn f() { y.unwrap(); }", "panic");
    check("provider/open.rs", "#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;\nfn f() { todo!() }", "undone");
    check("provider/open.rs", "pub struct KeyManager;", "says nothing");
    check("provider/open.rs", "mod util;", "says nothing");
    check("model/key.rs", &"\n".repeat(LINES_MAX), "lines");
    check("rotation/next.rs", &"\n".repeat(NEXT_MAX), "lines");
    assert!(Source::read("model/key.rs", "use std::fmt;\n").breaks()[0].contains("begins with"));
}

#[test]
fn the_tree_is_read_as_it_is_drawn() {
    let page = "words\n```text\nsrc/\n├── a.rs    one\n├── b/      two,\n│           and more\n│   ├── c.rs\n│   └── d/\n└── e/\n```\n";
    let entries: Vec<(String, bool)> = drawn(page).into_iter().collect();
    let expect = [("a.rs", false), ("b/", true), ("b/c.rs", false), ("b/d/", false), ("e/", false)];
    assert_eq!(entries, expect.map(|(path, open)| (path.to_string(), open)));
}
