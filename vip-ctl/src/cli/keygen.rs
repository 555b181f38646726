//! `vip-ctl keygen`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::support::{
    dry_run,
    output::{Failure, Format, exit_of_write, print, print_json},
};
use crate::{
    exit::Exit,
    transport::{
        KeyId,
        keyfile::{self, KeyFileError},
    },
};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl keygen /etc/vip/cluster.key\n  vip-ctl keygen --id 2 /etc/vip/next.key  # for a rotation"
)]
pub(super) struct Args {
    /// Where the new key goes; copy the file to every node of the cluster.
    #[arg(value_name = "FILE", default_value = "/etc/vip/cluster.key")]
    file: PathBuf,
    /// The key's number, which a rotation tells the old and the new key apart by.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    id: u8,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        return rehearse(args, format);
    }
    keyfile::generate(&args.file, KeyId(args.id)).map_err(|e| failed(&args.file, &e))?;
    let file = args.file.display().to_string();
    match format {
        Format::Json => print_json(&serde_json::json!({ "file": file, "id": args.id }))?,
        Format::Text => print(&format!("wrote {file}: copy it to every node of the cluster, mode 0600\n")),
    }
    Ok(Exit::Ok)
}

/// Why `keygen` wrote no key, and what to do.
fn failed(file: &Path, e: &KeyFileError) -> Failure {
    match e {
        KeyFileError::Write { source, .. } => {
            let mend = match directory(file) {
                _ if source.kind() == io::ErrorKind::PermissionDenied => {
                    "run it as root, or name another file".to_owned()
                }
                Some(missing) => format!("run `mkdir -p {}` first, or name another file", missing.display()),
                None => "name another file".to_owned(),
            };
            Failure::new(exit_of_write(source), format!("{e}: {mend}"))
        }
        KeyFileError::Exists(_) => Failure::new(Exit::Occupied, e.to_string()),
        KeyFileError::Randomness(_) => Failure::new(Exit::System, e.to_string()),
        KeyFileError::Missing(_)
        | KeyFileError::Read { .. }
        | KeyFileError::NotRegular(_)
        | KeyFileError::Mode { .. }
        | KeyFileError::Owner { .. }
        | KeyFileError::Text { .. } => Failure::new(Exit::Config, e.to_string()),
    }
}

/// The directory for `file`, if it does not exist.
fn directory(file: &Path) -> Option<&Path> {
    file.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
}

fn rehearse(args: &Args, format: Format) -> Result<Exit, Failure> {
    let file = args.file.display();
    if directory(&args.file).is_some() {
        let source = io::ErrorKind::NotFound.into();
        return Err(failed(&args.file, &KeyFileError::Write { path: args.file.clone(), source }));
    }
    if args.file.exists() {
        return Err(Failure::new(
            Exit::Occupied,
            format!("{file} is there already, and a key is never overwritten: name another file"),
        ));
    }
    dry_run::tell(&[format!("a new key with the number {} would be written to {file}", args.id)], format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_told_with_its_own_code_and_mend() {
        let dir = std::env::temp_dir().join(format!("vip-keygen-{}", std::process::id()));
        let file = dir.join("cluster.key");
        let args = |dry_run| Args { file: file.clone(), id: 1, dry_run };
        for dry_run in [true, false] {
            let failure = run(&args(dry_run), Format::Text).expect_err("there is no directory");
            assert_eq!(failure.exit, Exit::Occupied);
            let mend = format!("run `mkdir -p {}` first", dir.display());
            assert!(failure.message.contains(&mend), "{}", failure.message);
        }
        std::fs::create_dir(&dir).expect("made");
        run(&args(false), Format::Text).expect("there is one now");
        for dry_run in [true, false] {
            let failure = run(&args(dry_run), Format::Text).expect_err("there is a key");
            assert_eq!(failure.exit, Exit::Occupied);
        }
        let denied =
            KeyFileError::Write { path: file.clone(), source: io::ErrorKind::PermissionDenied.into() };
        let failure = failed(&file, &denied);
        assert_eq!(failure.exit, Exit::NoPermission);
        assert!(failure.message.ends_with("run it as root, or name another file"), "{}", failure.message);
        std::fs::remove_dir_all(&dir).expect("there");
    }
}
