//! `rekeyd init`: writes a config file, from flags, or from a few questions on a terminal. What it writes passes `check` but
//! for secrets, which it never asks for; a file that is there is never written over.

mod form;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::config;
use crate::daemon;
use crate::model::ProviderKind;

use super::output::complain;
use super::{CONFIG, Exit, Scene};
use form::{Answers, Source, parse_tag, render};

/// So often a question is asked in vain.
const TRIES: usize = 5;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The cloud: tencent-lighthouse, tencent-cvm, alibaba-ecs or baidu-bcc
    #[arg(long)]
    provider: Option<String>,
    /// The cloud's region, as the cloud spells it
    #[arg(long)]
    region: Option<String>,
    /// Where the cloud answers, for another one than its own: an international site, a simulated cloud
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The fleet's name [default: web]
    #[arg(long)]
    fleet: Option<String>,
    /// The fleet's machines bear this tag; may be given more than once: all of them
    #[arg(long, value_name = "NAME=VALUE")]
    tag: Vec<String>,
    /// The fleet is every machine of the account in the region
    #[arg(long, conflicts_with = "tag")]
    all_instances: bool,
    /// When it is due: second, minute, hour, day of month, month, day of week; `none`: by hand only [default: 0 0 3 1 * *]
    #[arg(long)]
    schedule: Option<String>,
    /// The time zone of the schedule [default: UTC]
    #[arg(long)]
    timezone: Option<String>,
    /// How a new key is proven: `ssh` logs in to each machine, `none` takes the cloud's word [default: ssh]
    #[arg(long, value_parser = ["ssh", "none"])]
    verify: Option<String>,
    /// Whose login proves the key [default: root]
    #[arg(long, value_name = "USER")]
    ssh_user: Option<String>,
    /// Where machines are reached: private, public or tag:NAME [default: private]
    #[arg(long, value_name = "ADDRESS")]
    ssh_address: Option<String>,
    /// Where the API key's id is read from: env:NAME, file:/PATH or credential:NAME [default: the vendor's own variable]
    #[arg(long, value_name = "SOURCE")]
    access_key_id: Option<String>,
    /// Where the API key's secret is read from
    #[arg(long, value_name = "SOURCE")]
    access_key_secret: Option<String>,
    /// The directory of the database and of the private keys [default: /var/lib/rekeyd]
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<String>,
    /// The file to write; `-` prints it [default: the file of --config]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let output = arguments.output.clone().unwrap_or_else(|| scene.config.clone());
    let to_stdout = output == Path::new("-");
    if !to_stdout && output.symlink_metadata().is_ok() {
        bail!("{} is there already and is not written over: --output FILE names another", output.display());
    }
    let above = output.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above.filter(|above| !to_stdout && !above.is_dir()) {
        bail!("{} is no directory: make it, or name another file with --output FILE", above.display());
    }
    let mut answers = Answers::default();
    let open = arguments.answer(&mut answers)?;
    if !open.is_empty() {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let missing: Vec<&str> = open.iter().map(|open| open.flag()).collect();
            bail!("{} missing; on a terminal `rekeyd init` asks", missing.join(" and "));
        }
        complain("A config file for one fleet. Enter takes what stands in brackets; secrets are not asked for.\n\n");
        let mut asker = Asker { input: &mut std::io::stdin().lock(), output: &mut std::io::stderr() };
        arguments.ask(&mut asker, &mut answers)?;
    }
    let text = render(&answers);
    let path = if to_stdout { Path::new("rekeyd.yaml") } else { output.as_path() };
    config::load(&text, path, &daemon::cloud)
        .context("no file was written: with these answers it could not be used")?;
    if to_stdout {
        scene.out.print(&text);
        return Ok(Exit::Done);
    }
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create_new(&output)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    if let Err(error) = write() {
        // What was answered is not lost.
        scene.out.print(&text);
        return Err(error)
            .with_context(|| format!("{} cannot be written; above is what it would hold", output.display()));
    }
    let command = match output == Path::new(CONFIG) {
        true => "rekeyd".to_string(),
        false => format!("rekeyd --config {}", output.display()),
    };
    scene.out.line(format!("{} is written; next:", output.display()));
    scene.out.line("  the API key goes where `credentials` in the file says, never into the file");
    scene.out.line(format!("  {command} check"));
    scene.out.line(format!("  {command} plan {}", answers.fleet));
    Ok(Exit::Done)
}

/// Without what nothing can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Provider,
    Region,
    Machines,
}

impl Needed {
    fn flag(self) -> &'static str {
        match self {
            Self::Provider => "--provider",
            Self::Region => "--region",
            Self::Machines => "--tag (or --all-instances)",
        }
    }
}

impl Arguments {
    /// Puts in what the flags say; what is needed and not said is answered.
    fn answer(&self, answers: &mut Answers) -> Result<Vec<Needed>> {
        let mut open = Vec::new();
        let said = |result: std::result::Result<(), String>, flag: &str| {
            result.map_err(|why| anyhow::anyhow!("{flag}: {why}"))
        };
        match &self.provider {
            Some(text) => said(set_provider(answers, text), "--provider")?,
            None => open.push(Needed::Provider),
        }
        match &self.region {
            Some(region) => answers.region.clone_from(region),
            None => open.push(Needed::Region),
        }
        answers.endpoint.clone_from(&self.endpoint);
        match (self.all_instances, self.tag.is_empty()) {
            (true, _) => answers.tags = None,
            (false, true) => open.push(Needed::Machines),
            (false, false) => said(set_tags(answers, self.tag.iter().map(String::as_str)), "--tag")?,
        }
        let texts = [
            (&self.fleet, &mut answers.fleet),
            (&self.timezone, &mut answers.timezone),
            (&self.ssh_address, &mut answers.address),
            (&self.state, &mut answers.state),
        ];
        for (said, answer) in texts {
            said.iter().for_each(|text| answer.clone_from(text));
        }
        self.schedule.iter().for_each(|text| set_schedule(answers, text));
        match (self.verify.as_deref(), &self.ssh_user) {
            (Some("none"), user) if user.is_some() || self.ssh_address.is_some() => {
                bail!("--ssh-user and --ssh-address go with --verify ssh")
            }
            (Some("none"), _) => answers.login = None,
            (_, user) => user.iter().for_each(|user| answers.login = Some(user.clone())),
        }
        if answers.schedule.is_none() && self.timezone.is_some() {
            bail!("--timezone goes with a --schedule");
        }
        let sources = [
            (&self.access_key_id, &mut answers.access_key_id, "--access-key-id"),
            (&self.access_key_secret, &mut answers.access_key_secret, "--access-key-secret"),
        ];
        for (text, answer, flag) in sources {
            if let Some(text) = text {
                *answer = Some(Source::parse(text).map_err(|why| anyhow::anyhow!("{flag} {why}"))?);
            }
        }
        Ok(open)
    }

    /// Asks for all that no flag said.
    fn ask(&self, asker: &mut Asker<'_>, answers: &mut Answers) -> Result<()> {
        let providers = ProviderKind::ALL.map(ProviderKind::as_str).join(", ");
        if self.provider.is_none() {
            asker.ask(answers, &format!("Which cloud? ({providers})"), None, set_provider)?;
        }
        if self.region.is_none() {
            let example = match answers.provider {
                ProviderKind::TencentLighthouse | ProviderKind::TencentCvm => "ap-singapore",
                ProviderKind::AlibabaEcs => "cn-hangzhou",
                ProviderKind::BaiduBcc => "bj",
            };
            let question = format!("Which region, as the cloud spells it? (like {example})");
            asker.ask(answers, &question, None, |answers, text| set(&mut answers.region, text))?;
        }
        if self.fleet.is_none() {
            asker.ask(answers, "What is the fleet to be called?", Some("web"), |answers, text| {
                set(&mut answers.fleet, text)
            })?;
        }
        if self.tag.is_empty() && !self.all_instances {
            let question = "Which tags do its machines bear? (NAME=VALUE, more than one with blanks between; `all`: every machine \
                            of the account in the region)";
            asker.ask(answers, question, None, |answers, text| match text {
                "all" => {
                    answers.tags = None;
                    Ok(())
                }
                tags => set_tags(answers, tags.split_whitespace()),
            })?;
        }
        if self.schedule.is_none() {
            let question = "When is it rotated? (second minute hour day month weekday; `none`: by hand only)";
            asker.ask(answers, question, Some("0 0 3 1 * *"), |answers, text| {
                set_schedule(answers, text);
                Ok(())
            })?;
        }
        if self.timezone.is_none() && answers.schedule.is_some() {
            asker.ask(answers, "In which time zone is that?", Some("UTC"), |answers, text| {
                set(&mut answers.timezone, text)
            })?;
        }
        if self.verify.is_none() && self.ssh_user.is_none() {
            let question = "As which user does rekeyd log in to prove a new key? (`none`: the cloud's word is taken)";
            asker.ask(answers, question, Some("root"), |answers, text| {
                answers.login = (text != "none").then(|| text.to_string());
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn set(answer: &mut String, text: &str) -> std::result::Result<(), String> {
    *answer = text.to_string();
    Ok(())
}

fn set_provider(answers: &mut Answers, text: &str) -> std::result::Result<(), String> {
    let names = ProviderKind::ALL.map(ProviderKind::as_str).join(", ");
    let known = ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    answers.provider = known.ok_or_else(|| format!("{text:?} is none of {names}"))?;
    Ok(())
}

fn set_tags<'a>(answers: &mut Answers, tags: impl Iterator<Item = &'a str>) -> std::result::Result<(), String> {
    answers.tags = Some(tags.map(parse_tag).collect::<std::result::Result<_, _>>()?);
    Ok(())
}

fn set_schedule(answers: &mut Answers, text: &str) {
    answers.schedule = (text != "none").then(|| text.to_string());
}

/// Asks a person, until an answer makes a good file.
struct Asker<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl Asker<'_> {
    fn ask(
        &mut self,
        answers: &mut Answers,
        question: &str,
        usual: Option<&str>,
        set: impl Fn(&mut Answers, &str) -> std::result::Result<(), String>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let bracket = usual.map(|usual| format!(" [{usual}]")).unwrap_or_default();
            write!(self.output, "{question}{bracket} ").and_then(|()| self.output.flush())?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                bail!("no file was written: the questions were not answered");
            }
            let text = match (line.trim(), usual) {
                ("", Some(usual)) => usual,
                ("", None) => continue,
                (text, _) => text,
            };
            let mut tried = answers.clone();
            let problem = set(&mut tried, text).and_then(|()| good(&tried));
            match problem {
                Ok(()) => {
                    *answers = tried;
                    return Ok(());
                }
                Err(why) => writeln!(self.output, "  {why}")?,
            }
        }
        bail!("no file was written: {question:?} was not answered")
    }
}

/// Whether the answers so far make a good file; what is not answered yet is good by itself.
fn good(answers: &Answers) -> std::result::Result<(), String> {
    match config::load(&render(answers), Path::new("rekeyd.yaml"), &daemon::cloud) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.problems.into_iter().map(|problem| problem.text).collect::<Vec<_>>().join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(flags: &[&str]) -> Arguments {
        Line::try_parse_from(std::iter::once(&"init").chain(flags)).unwrap().arguments
    }

    #[test]
    fn a_question_is_asked_until_its_answer_is_good_and_a_flag_is_not_asked_again() {
        let check = |flags: &[&str], input: &str, expect: Option<(ProviderKind, &str, &str)>, said: &[&str]| {
            let (arguments, mut answers, mut output) = (parse(flags), Answers::default(), Vec::new());
            arguments.answer(&mut answers).unwrap();
            let mut asker = Asker { input: &mut input.as_bytes(), output: &mut output };
            let asked = arguments.ask(&mut asker, &mut answers);
            let output = String::from_utf8(output).unwrap();
            said.iter().for_each(|words| assert!(output.contains(words), "{output} lacks {words:?}"));
            let got = asked.ok().map(|()| (answers.provider, answers.region.as_str(), answers.fleet.as_str()));
            assert_eq!(got, expect, "{output}");
        };
        let ecs = ProviderKind::AlibabaEcs;
        check(&[], "alibaba-ecs\ncn-hangzhou\n\nrole=web\n\n\n\n", Some((ecs, "cn-hangzhou", "web")), &["[root]"]);
        let slips = "aws\nalibaba-ecs\nHangzhou\ncn-hangzhou\nWeb!\nshop\nrole\nrole=web\n0 3 1 * *\nnone\nroot\n";
        let told = ["none of tencent", "no region", "a name has", "NAME=VALUE", "six, the second first"];
        check(&[], slips, Some((ecs, "cn-hangzhou", "shop")), &told);
        let flags = ["--provider", "alibaba-ecs", "--region", "cn-hangzhou", "--tag", "a=b", "--schedule", "none"];
        check(&flags, "db\nnone\n", Some((ecs, "cn-hangzhou", "db")), &["As which user"]);
        check(&[], "alibaba-ecs\n", None, &[]);
        check(&[], &"aws\n".repeat(9), None, &[]);
    }

    #[test]
    fn what_is_needed_and_not_said_is_named() {
        let check = |flags: &[&str], expect: &[Needed]| {
            assert_eq!(parse(flags).answer(&mut Answers::default()).unwrap(), expect, "{flags:?}");
        };
        check(&[], &[Needed::Provider, Needed::Region, Needed::Machines]);
        check(&["--provider", "baidu-bcc", "--all-instances"], &[Needed::Region]);
        check(&["--provider", "baidu-bcc", "--region", "bj", "--tag", "a=b"], &[]);
        let refused = |flags: &[&str]| parse(flags).answer(&mut Answers::default()).unwrap_err().to_string();
        assert!(refused(&["--access-key-secret", "wJalrXUtn"]).starts_with("--access-key-secret says no place"));
        assert!(refused(&["--verify", "none", "--ssh-user", "x"]).contains("--verify ssh"));
        assert!(refused(&["--verify", "none", "--ssh-address", "public"]).contains("--verify ssh"));
        assert!(refused(&["--schedule", "none", "--timezone", "Asia/Shanghai"]).contains("--schedule"));
    }
}
