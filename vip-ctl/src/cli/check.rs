//! `vip-ctl check`: what a configuration means, or everything that is wrong with
//! it. It changes nothing and asks no agent.

mod meaning;
#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::support::output::{Failure, Format, print, print_json};
use crate::{
    config::{Config, ConfigError, more_files, unread_files},
    doctor::homes,
    exit::Exit,
    host::Host,
    http,
    outbound::runnable::{self, Unusable},
    paths::Paths,
    transport::KeyRing,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl check --config /etc/vip/vip.toml")]
pub(super) struct Args {
    /// The configuration; the files of conf.d next to it belong to it.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vip.toml")]
    config: PathBuf,
    /// Don't look at this host: the key file, the interfaces, the programs.
    #[arg(long)]
    no_host: bool,
}

/// What this host lacks for a configuration, or doubts about it.
#[derive(Default)]
struct Findings {
    /// What keeps an agent from starting, or this node from holding a group.
    errors: Vec<String>,
    /// What may be a mistake.
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            match format {
                Format::Json => {
                    let errors: Vec<_> = errors.errors().iter().map(mistake).collect();
                    let warnings = unread(&args.config);
                    print_json(&json!({ "ok": false, "errors": errors, "warnings": warnings }))?;
                }
                Format::Text => eprint!("{}", errors.errors().iter().map(shown).collect::<String>()),
            }
            return Ok(Exit::Config);
        }
    };
    let mut findings = if args.no_host { Findings::default() } else { of_host(&config, &paths.run_dir) };
    findings.warnings.splice(..0, [unread(&args.config), doubtful(&config)].concat());
    let files = files(&args.config)?;
    match format {
        Format::Json => {
            let errors: Vec<_> =
                findings.errors.iter().map(|message| json!({ "message": message })).collect();
            print_json(&json!({
                "ok": errors.is_empty(),
                "errors": errors,
                "warnings": findings.warnings,
                "configuration": meaning::meaning(&config, &files),
            }))?;
        }
        Format::Text => {
            print(&meaning::text(&config, &files));
            for warning in &findings.warnings {
                print(&format!("warning: {warning}\n"));
            }
            for error in &findings.errors {
                eprintln!("{error}");
            }
        }
    }
    Ok(if findings.errors.is_empty() { Exit::Ok } else { Exit::Config })
}

/// The files that the configuration is made of.
fn files(main: &Path) -> Result<Vec<String>, Failure> {
    let more =
        more_files(main).map_err(|e| Failure::new(Exit::Config, format!("conf.d can't be listed: {e}")))?;
    let all = std::iter::once(main.to_owned()).chain(more);
    Ok(all.map(|path| path.display().to_string()).collect())
}

/// Files beside those of the configuration that the agent does not read.
fn unread(main: &Path) -> Vec<String> {
    // Reading the configuration reports a directory that can't be listed.
    let files = unread_files(main).unwrap_or_default();
    let said = files
        .iter()
        .map(|file| format!("{} is not read: end its name in .toml, or move it away", file.display()));
    said.collect()
}

/// What is valid but hardly ever intended.
fn doubtful(config: &Config) -> Vec<String> {
    let vips = config.groups.iter().flat_map(|group| group.vips.iter().map(move |vip| (group, vip)));
    let local = vips.filter(|(_, vip)| matches!(vip, IpAddr::V4(vip) if vip.is_link_local()));
    let said = local.map(|(group, vip)| {
        format!(
            "group {}: the VIP {vip} is a link-local address, which no router forwards: only clients on the same link \
             can reach it",
            group.name
        )
    });
    said.collect()
}

/// A mistake as JSON.
fn mistake(error: &ConfigError) -> Value {
    json!({
        "file": error.path.display().to_string(),
        "line": error.place.map(|place| place.line),
        "column": error.place.map(|place| place.column),
        "text": error.text,
        "message": error.message,
    })
}

/// A mistake as text, with the line that it is in.
fn shown(error: &ConfigError) -> String {
    let mut out = format!("{error}\n");
    if let Some(place) = error.place.filter(|_| !error.line.trim().is_empty()) {
        let line = error.line.replace('\t', " ");
        let marks = "^".repeat(error.text.chars().count().max(1));
        // Writing to a string does not fail.
        let _ = writeln!(out, "    {line}\n    {}{marks}", " ".repeat(place.column - 1));
    }
    out
}

/// What an agent would find on this host.
fn of_host(config: &Config, run_dir: &Path) -> Findings {
    let mut findings = Findings::default();
    if let Err(e) = KeyRing::load(&config.cluster.key_file) {
        findings.errors.push(e.to_string());
    }
    if let Some(Err(e)) = config.api.as_ref().map(http::check) {
        findings.errors.push(e.to_string());
    }
    let is_there = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
    for name in config.interfaces.iter().filter(|name| !is_there(name)) {
        findings.warnings.push(format!(
            "there is no interface {name} on this host: until there is, this node answers for nothing"
        ));
    }
    match Host::open(run_dir).and_then(|host| homes::off_link(config, &host)) {
        Ok(says) => findings.warnings.extend(says),
        Err(e) => findings.warnings.push(format!("this host's addresses can't be read: {e}")),
    }
    for group in &config.groups {
        for name in group.health.track_interface.iter().filter(|name| !is_there(name)) {
            findings.warnings.push(format!(
                "group {}: there is no interface {name} on this host: until there is, this node is not eligible",
                group.name
            ));
        }
    }
    for Unusable { says, releases } in runnable::unusable(config) {
        if releases { findings.errors.push(says) } else { findings.warnings.push(says) }
    }
    findings
}
