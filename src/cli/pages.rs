//! What is made of the verbs as clap knows them, for packages and shells: completions and man pages. It must never read the
//! config file, nor write anywhere but where it is told.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Command as Grammar, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: For,
}

/// The shells that are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
}

#[derive(clap::Args)]
pub(super) struct Man {
    /// The directory; it is made if it is not there. Pages that are there are written over
    directory: PathBuf,
}

/// The verbs, without those that are not for people.
fn command() -> Grammar {
    let command = super::Arguments::command();
    let shown: Vec<Grammar> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let bare = Grammar::new("rekeyd").version(super::version::version()).propagate_version(true);
    let about = command.get_about().cloned().unwrap_or_default();
    bare.about(about).args(command.get_arguments().cloned()).subcommand_required(true).subcommands(shown)
}

/// `rekeyd completions SHELL`.
pub(super) fn completions(scene: &Scene, arguments: &Completions) -> Exit {
    let shell = match arguments.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "rekeyd", &mut text);
    scene.out.print(&String::from_utf8_lossy(&text));
    Exit::Done
}

/// `rekeyd man DIR`: a page for the program, and one for each verb.
pub(super) fn man(scene: &Scene, arguments: &Man) -> Result<Exit> {
    let to = &arguments.directory;
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    clap_mangen::generate_to(command(), to).with_context(|| to.display().to_string())?;
    scene.out.line(format!("man pages in {}", to.display()));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_are_whole_and_those_for_machines_are_not_shown() {
        super::super::Arguments::command().debug_assert();
        command().debug_assert();
        let verbs: Vec<String> = command().get_subcommands().map(|verb| verb.get_name().to_string()).collect();
        assert!(verbs.iter().any(|verb| verb == "rotate") && !verbs.iter().any(|verb| verb == "man"), "{verbs:?}");
    }
}
