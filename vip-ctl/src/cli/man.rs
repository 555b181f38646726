//! `vip-ctl man`: the manual pages, made from what `--help` says.

use std::{fs, io, path::PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::json;

use super::{
    Cli,
    support::output::{Failure, Format, print, print_json},
};
use crate::exit::Exit;

/// The section of administrators' commands.
const SECTION: &str = "8";

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl man > vip-ctl.8\n  vip-ctl man /usr/local/share/man/man8  # a page for each verb"
)]
pub(super) struct Args {
    /// The directory to write a page for each verb into; created if it does not
    /// exist. Without it, vip-ctl prints its own page.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<Exit, Failure> {
    let failed = |what: String| {
        move |e: io::Error| {
            let is_denied = e.kind() == io::ErrorKind::PermissionDenied;
            let exit = if is_denied { Exit::NoPermission } else { Exit::Occupied };
            Failure::new(exit, format!("could not write {what}: {e}"))
        }
    };
    let pages = pages().map_err(failed("the manual pages".into()))?;
    let Some(dir) = &args.dir else {
        let own = pages.first().map(|(_, page)| page.as_str()).unwrap_or_default();
        match format {
            Format::Text => print(own),
            Format::Json => print_json(&json!({ "page": own }))?,
        }
        return Ok(Exit::Ok);
    };
    fs::create_dir_all(dir).map_err(failed(dir.display().to_string()))?;
    for (name, page) in &pages {
        let file = dir.join(name);
        fs::write(&file, page).map_err(failed(file.display().to_string()))?;
    }
    let names: Vec<_> = pages.iter().map(|(name, _)| name).collect();
    match format {
        Format::Text => print(&format!("wrote {} manual pages to {}\n", pages.len(), dir.display())),
        Format::Json => print_json(&json!({ "dir": dir.display().to_string(), "pages": names }))?,
    }
    Ok(Exit::Ok)
}

/// Every page under its file's name, vip-ctl's own first.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut command = Cli::command();
    // Gives every verb its global options and its full name.
    command.build();
    let mut pages = Vec::new();
    add(&command, "vip-ctl", &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, name: &str, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    // Section 8 for the pages of the verbs that a page refers to, too.
    let command = command.clone().display_name(name.to_owned());
    let mut page = Vec::new();
    Man::new(command.clone()).title(name.to_uppercase()).section(SECTION).render(&mut page)?;
    pages.push((format!("{name}.{SECTION}"), String::from_utf8_lossy(&page).into_owned()));
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        add(verb, &format!("{name}-{}", verb.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_with_its_example() {
        let pages = pages().expect("made");
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.first(), Some(&"vip-ctl.8"));
        for name in ["vip-ctl-switchover.8", "vip-ctl-member-add.8", "vip-ctl-agent.8"] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        for (name, page) in &pages {
            assert!(page.contains(".TH "), "{name} has no title");
            assert!(page.contains("Example"), "{name} has no example");
        }
    }
}
