//! `vip-ctl convert`: what [`crate::convert`] makes of a `keepalived.conf`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::support::output::{Failure, Format, host_name, print, print_json};
use crate::{convert, exit::Exit, paths::Paths};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "stderr lists what could not be carried over and what you have to fill in, each with its line.\n\nExamples:\n  vip-ctl convert /etc/keepalived/keepalived.conf --node db-a\n  vip-ctl convert keepalived.conf --out /etc/vip/vip.toml"
)]
pub(super) struct Args {
    /// keepalived's configuration.
    #[arg(value_name = "FILE", default_value = "/etc/keepalived/keepalived.conf")]
    file: PathBuf,
    /// This node's name in the new cluster; keepalived's router_id, or the
    /// host's name, if left out.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where the configuration goes, instead of to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite the file that --out names.
    #[arg(long, requires = "out")]
    force: bool,
}

pub(super) fn run(args: &Args, _paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let file = args.file.display();
    let bytes = fs::read(&args.file).map_err(|e| {
        let (exit, mend) = if e.kind() == io::ErrorKind::PermissionDenied {
            (Exit::NoPermission, "run it as root, or give it a copy")
        } else {
            (Exit::NoInput, "name another one")
        };
        Failure::new(exit, format!("{file} can't be read ({e}): {mend}"))
    })?;
    // Comments may be in any encoding.
    let text = String::from_utf8_lossy(&bytes);
    let converted = convert::convert(&text, args.node.as_deref(), &host_name())
        .map_err(|e| Failure::new(Exit::Config, format!("{file}:{e}")))?;
    if let Some(out) = &args.out {
        write(out, &converted.toml, args.force)?;
    }
    if format == Format::Json {
        print_json(&json!({ "toml": converted.toml, "notes": converted.notes, "out": args.out }))?;
        return Ok(Exit::Ok);
    }
    for note in &converted.notes {
        let line = note.line.map(|line| format!("{line}:")).unwrap_or_default();
        // If stderr is closed, nobody wants to read this.
        let _ = writeln!(io::stderr(), "{file}:{line} {}: {}", note.kind.name(), note.says);
    }
    match &args.out {
        None => print(&converted.toml),
        Some(out) => {
            let out = out.display();
            print(&format!("wrote {out}: fill in what says FILL-IN, then vip-ctl check --config {out}\n"));
        }
    }
    Ok(Exit::Ok)
}

fn write(out: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!force);
    let written = options.open(out).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| {
        let (exit, mend) = if e.kind() == io::ErrorKind::AlreadyExists {
            (Exit::Occupied, "use --force to overwrite it")
        } else if e.kind() == io::ErrorKind::PermissionDenied {
            (Exit::NoPermission, "run it as root, or name another file")
        } else {
            (Exit::Occupied, "name another file")
        };
        Failure::new(exit, format!("{} can't be written ({e}): {mend}", out.display()))
    })
}
