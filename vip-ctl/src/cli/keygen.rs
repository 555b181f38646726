//! `vip-ctl keygen`.

use std::path::PathBuf;

use super::{Failure, Format, dry_run, print, print_json};
use crate::{
    exit::Exit,
    transport::{KeyId, keyfile},
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
    keyfile::generate(&args.file, KeyId(args.id)).map_err(|e| Failure::new(Exit::Occupied, e.to_string()))?;
    let file = args.file.display().to_string();
    match format {
        Format::Json => print_json(&serde_json::json!({ "file": file, "id": args.id }))?,
        Format::Text => print(&format!("wrote {file}: copy it to every node of the cluster, mode 0600\n")),
    }
    Ok(Exit::Ok)
}

fn rehearse(args: &Args, format: Format) -> Result<Exit, Failure> {
    let file = args.file.display();
    if args.file.exists() {
        return Err(Failure::new(
            Exit::Occupied,
            format!("{file} is there already, and a key is never overwritten: name another file"),
        ));
    }
    dry_run::tell(&[format!("a new key with the number {} would be written to {file}", args.id)], format)
}
