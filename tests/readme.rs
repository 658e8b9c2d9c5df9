//! What README, the runbook and the map of the sources tell people to type, held against what is there. It starts nothing but
//! `rekeyd init`, which writes nothing here.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A section of a page, without its heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let rest = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading:?}")).1;
    let level = format!("\n{} ", heading.split(' ').next().unwrap());
    rest.split(level.as_str()).next().unwrap()
}

/// The fenced blocks of one kind.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    text.split(&format!("```{kind}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What stands behind each of these words, to the end of the word.
fn behind<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
    text.split(words).skip(1).map(|rest| rest.split([' ', ':', '\n', '}']).next().unwrap()).collect()
}

#[test]
fn the_credentials_of_the_unit_are_written_loaded_and_named_alike() {
    let readme = read("README.md");
    let text = section(&readme, "## Under systemd");
    let text = text.split("**Secrets**").nth(1).unwrap().split("**`systemctl status").next().unwrap();
    let set = |names: Vec<&str>| names.into_iter().map(str::to_string).collect::<BTreeSet<String>>();
    let consoles = blocks(text, "console");
    let init = consoles[0].trim().strip_prefix("# rekeyd ").unwrap();
    let commands = consoles[1];
    let loads: Vec<&str> = commands.lines().filter_map(|line| line.strip_prefix("LoadCredentialEncrypted=")).collect();
    let loaded = set(loads.iter().map(|load| load.split(':').next().unwrap()).collect());
    assert!(loaded.len() > 1, "{commands}");
    assert_eq!(set(behind(init, "credential:")), loaded, "{init}");
    assert_eq!(set(behind(commands, "systemd-creds encrypt --name=")), loaded, "{commands}");
    let yaml = blocks(text, "yaml")[0];
    assert_eq!(set(behind(yaml, "credential: ")), loaded, "{yaml}");
    assert_eq!(set(behind(blocks(text, "text")[0], "LoadCredentialEncrypted=")), loaded, "the systemd-run line");
    // Each file is written by the command above that loads it, and under its name.
    for load in loads {
        let (name, file) = load.split_once(':').unwrap();
        assert!(commands.contains(&format!("systemd-creds encrypt --name={name} - {file} ")), "nobody writes {file}");
    }
    // And so does `init` write it.
    let rest = ["--region", "ap-singapore", "--tag", "role=web", "--output", "-"];
    let output = Command::new(env!("CARGO_BIN_EXE_rekeyd")).args(init.split_whitespace()).args(rest).output().unwrap();
    let written = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && written.contains(yaml), "{written}\nlacks\n{yaml}");
}

/// The names of tests and of the modules that they stand in.
fn names_in(test: &str) -> String {
    let (file, folder) = (path(&format!("tests/{test}.rs")), path(&format!("tests/{test}")));
    let files: Vec<PathBuf> = match file.exists() {
        true => vec![file],
        false => std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect(),
    };
    let mut names = String::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let module = file.file_stem().unwrap().to_str().unwrap();
        for name in behind(&text.replace('(', " "), "fn ") {
            names += &format!("{module}::{name}\n");
        }
    }
    names
}

#[test]
fn each_claim_names_commands_that_find_their_tests() {
    let page = read("src/docs/architecture.md");
    let table = section(&page, "## Claims, and what shows them");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{table}");
    let parts = read("tests/run");
    let parts = parts.lines().find(|line| line.starts_with("case $only in ")).unwrap();
    for row in rows {
        let (claim, commands) = row.trim_matches('|').split_once(" | ").unwrap();
        let commands: Vec<&str> = commands.split('`').skip(1).step_by(2).collect();
        assert!(!commands.is_empty(), "{claim}: no command");
        for command in commands {
            match *command.split(' ').collect::<Vec<_>>() {
                ["cargo", "test", "--lib", module] => {
                    let module = path("src").join(module.replace("::", "/"));
                    assert!(module.is_dir() || module.with_extension("rs").is_file(), "{command}: no such module");
                }
                ["cargo", "test", "--test", test, ref filter @ ..] => {
                    let there = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
                    assert!(there.iter().any(|file| path(file).is_file()), "{command}: no such test");
                    let names = names_in(test);
                    assert!(filter.len() < 2, "{command}: cargo test takes one filter");
                    assert!(filter.iter().all(|word| names.contains(word)), "{command}: it finds no test");
                }
                ["bash", "tests/run", part] => assert!(parts.contains(&format!("| {part}")), "{command}: no such part"),
                _ => panic!("{command}: what is this?"),
            }
        }
    }
}

#[test]
fn relative_links_lead_to_files_and_to_sections_that_are_there() {
    for page in ["README.md", "dashboards/runbook.md", "src/docs/architecture.md"] {
        let text = read(page);
        let folder = path(page).parent().unwrap().to_path_buf();
        let mut links = 0;
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { path(page) } else { folder.join(file) };
            assert!(file.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&file).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.collect::<Vec<_>>().contains(&anchor.to_string()), "{page}: {link}: no such section");
            }
        }
        assert!(links > 0 || page.starts_with("src"), "{page}: no link was read");
    }
}

/// A heading as links name it.
fn anchor_of(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}
