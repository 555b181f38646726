//! `vip-ctl keygen`.

use std::path::PathBuf;

use super::{Failure, Format, print, print_json};
use crate::{
    exit::Exit,
    transport::{KeyId, keyfile},
};

/// Example: vip-ctl keygen /etc/vip/cluster.key
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Where the new key goes; copy the file to every node of the cluster.
    #[arg(value_name = "FILE", default_value = "/etc/vip/cluster.key")]
    file: PathBuf,
    /// The key's number, which a rotation tells the old and the new key apart by.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    id: u8,
}

pub(super) fn run(args: &Args, format: Format) -> Result<Exit, Failure> {
    keyfile::generate(&args.file, KeyId(args.id)).map_err(|e| Failure::new(Exit::Occupied, e.to_string()))?;
    let file = args.file.display().to_string();
    match format {
        Format::Json => print_json(&serde_json::json!({ "file": file, "id": args.id }))?,
        Format::Text => print(&format!("wrote {file}: copy it to every node of the cluster, mode 0600\n")),
    }
    Ok(Exit::Ok)
}
