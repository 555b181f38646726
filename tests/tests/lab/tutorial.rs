//! `docs/tutorial.md`, followed to the letter: its commands are run on the
//! hosts that it names, and each line `# → text` has to come true.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use vip_tests::lab::{Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
const PATIENCE: Duration = Duration::from_secs(30);

/// A fenced block.
#[derive(Debug)]
struct Block {
    /// `sh` or `toml`.
    language: String,
    /// The host, or the file.
    about: String,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in TUTORIAL.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => {
                let (language, about) = info.split_once(' ').unwrap_or((info, ""));
                open = Some(Block { language: language.into(), about: about.into(), lines: Vec::new() });
            }
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A command and what its output has to have in it.
struct Step<'b> {
    command: &'b str,
    wanted: Vec<&'b str>,
}

fn steps(block: &Block) -> Result<Vec<Step<'_>>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for line in &block.lines {
        match line.strip_prefix("# → ") {
            Some(wanted) => steps.last_mut().context("a command before its output")?.wanted.push(wanted),
            None => steps.push(Step { command: line, wanted: Vec::new() }),
        }
    }
    Ok(steps)
}

/// The hosts' paths, in the directory that this host has in the lab.
fn here(text: &str, node: &Node) -> Result<String> {
    let config = node.config_file();
    let dir = config.parent().and_then(|dir| dir.to_str()).context("the node's directory")?;
    Ok(text.replace("/etc/vip/", &format!("{dir}/")).replace("/srv/www", &format!("{dir}/www")))
}

/// What systemd and scp would do.
fn stand_in(lab: &Lab, node: &Node, command: &str) -> Result<bool> {
    let words: Vec<_> = command.split_whitespace().collect();
    match words[..] {
        ["systemctl", "enable", "--now", "vip-agent"] | ["systemctl", "start", "vip-agent"] => {
            node.start_agent()?
        }
        ["systemctl", "stop", "vip-agent"] => ensure!(node.stop_agent()?.success()),
        ["systemctl", "kill", "--kill-whom=main", "--signal=STOP", "vip-agent"] => {
            kill(node.agent_pid()?, Signal::SIGSTOP)?;
        }
        ["systemctl", "restart", "vip-agent"] => {
            node.kill_agent()?;
            node.start_agent()?;
        }
        ["scp", from, to] => {
            let (host, to) = to.split_once(':').context("a host")?;
            let to = here(to, lab.node(host)?)?;
            std::fs::copy(here(from, node)?, &to).with_context(|| format!("copying to {to}"))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs a line in a shell; whether it succeeded, and what it printed.
fn run(mut command: Command, line: &str) -> Result<(bool, String)> {
    command.arg("-c").arg(line).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("running {line}"))?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
}

/// A shell on a host of the tutorial, in which `vip-ctl` is the one to test.
fn shell(lab: &Lab, host: &str) -> Result<Command> {
    if host == "client" {
        return lab.client()?.ns.command("sh");
    }
    let node = lab.node(host)?;
    let mut command = node.ns().command("sh")?;
    command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", node.run_dir());
    command.env("VIP_STATE_DIR", node.state_dir());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", lab.id().dir().join("bin").display()));
    Ok(command)
}

/// Does `line` until all of `wanted` is in what it prints, if it only looks or
/// can be repeated; what else changes something has one try.
fn follow(lab: &Lab, host: &str, line: &str, wanted: &[&str]) -> Result<()> {
    // A node that has just started may not be ready for the first try.
    let again = ["vip-ctl status", "vip-ctl doctor", "vip-ctl switchover", "curl "];
    let repeats = again.iter().any(|again| line.starts_with(again)) || line.ends_with("--dry-run");
    let patience = if repeats { PATIENCE } else { Duration::ZERO };
    let mut last = (false, String::new());
    let mut error = None;
    let came_true = wait_until(clock::now().plus(patience), || {
        match shell(lab, host).and_then(|shell| run(shell, line)) {
            Ok(said) => last = said,
            Err(e) => error = Some(e),
        }
        // doctor's exit code is about all of the host; the tutorial is about a line of it.
        let good = last.0 || line.starts_with("vip-ctl doctor");
        good && wanted.iter().all(|wanted| last.1.contains(wanted))
    });
    match error {
        Some(e) if !came_true => Err(e),
        _ if came_true => Ok(()),
        _ => bail!("on {host}, `{line}` was to say {wanted:?} and said:\n{}", last.1),
    }
}

#[lab_test("python3", "curl")]
fn the_tutorial_comes_true() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(Duration::from_secs(1), Some(find_vip_ctl()?)).with_witness())?;
    let bin = lab.id().dir().join("bin");
    std::fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink(find_vip_ctl()?.canonicalize()?, bin.join("vip-ctl"))?;
    let mut commands = 0;
    for block in blocks() {
        match block.language.as_str() {
            "toml" => {
                ensure!(block.about == "/etc/vip/vip.toml", "{block:?}");
                for node in lab.nodes() {
                    let own = format!("name = \"{}\"", node.name());
                    let text = block.lines.join("\n").replacen("name = \"db-a\"", &own, 1);
                    node.write_config(&here(&text, node)?)?;
                }
            }
            "sh" => {
                for step in steps(&block)? {
                    commands += 1;
                    let node = lab.node(&block.about);
                    if let Ok(node) = &node
                        && stand_in(&lab, node, step.command)?
                    {
                        continue;
                    }
                    let line = match &node {
                        Ok(node) => here(step.command, node)?,
                        Err(_) => step.command.to_owned(),
                    };
                    follow(&lab, &block.about, &line, &step.wanted)?;
                }
            }
            _ => bail!("what is to be done with {block:?}?"),
        }
    }
    ensure!(commands > 20, "only {commands} commands were found");
    Ok(())
}

#[test]
fn every_document_that_is_named_is_there() -> Result<()> {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut links = 0;
    for entry in std::fs::read_dir(&docs)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            ensure!(docs.join(target).exists(), "{} names {target}, which is not there", path.display());
        }
    }
    ensure!(links > 5, "only {links} links were found");
    Ok(())
}
