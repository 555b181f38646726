//! `vip-ctl member`: the nodes of the cluster, one change at a time
//! (docs/protocol.md, rule 10). It edits this node's `vip.toml` and nothing else; an
//! agent takes the change up when it is restarted, and VIPs stay where they are.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::support::{
    dry_run,
    output::{Failure, Format, exit_of_write, print, print_json},
};
use crate::{
    config::{Config, NODES_MAX},
    exit::Exit,
    lookup,
    paths::Paths,
    records::membership::Membership,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl member list\n  vip-ctl member add db-d 10.0.1.13:7077")]
pub(super) struct Args {
    /// The configuration to change.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vip.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Add a node in this node's configuration.
    #[command(after_help = "Example:\n  vip-ctl member add db-d 10.0.1.13:7077 --dry-run")]
    Add {
        /// Its name.
        name: String,
        /// Where its agent listens.
        #[arg(value_name = "ADDRESS:PORT")]
        address: SocketAddr,
        /// It votes, and never holds.
        #[arg(long, conflicts_with = "observer")]
        witness: bool,
        /// It looks on, and neither votes nor holds.
        #[arg(long)]
        observer: bool,
        /// Say what would happen, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a node from this node's configuration.
    #[command(after_help = "Example:\n  vip-ctl member remove db-d")]
    Remove {
        /// Its name.
        name: String,
        /// Say what would happen, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the membership that this node takes part in.
    #[command(after_help = "Example:\n  vip-ctl member list -o json")]
    List,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let text = fs::read_to_string(&args.config).map_err(|e| {
        let (exit, mend) = if e.kind() == io::ErrorKind::PermissionDenied {
            (Exit::NoPermission, "run it as root, or name another with --config")
        } else {
            (Exit::NoInput, "name another with --config")
        };
        Failure::new(exit, format!("{} can't be read ({e}): {mend}", args.config.display()))
    })?;
    let config = Config::load(&args.config).map_err(|e| Failure::new(Exit::Config, e.to_string()))?;
    let record = Membership::load(&paths.state_dir).map_err(|e| {
        let (exit, mend) = if e.kind() == io::ErrorKind::PermissionDenied {
            (Exit::NoPermission, "run it as root, or name --state-dir")
        } else {
            (Exit::System, "mend it, or name --state-dir")
        };
        let dir = paths.state_dir.display();
        Failure::new(exit, format!("the record of the membership in {dir} can't be read ({e}): {mend}"))
    })?;
    let (edit, dry_run) = match &args.what {
        What::List => return list(&config, record.as_ref(), format),
        What::Add { name, address, witness, observer, dry_run } => {
            (Edit::Add { name, address: *address, witness: *witness, observer: *observer }, *dry_run)
        }
        What::Remove { name, dry_run } => (Edit::Remove { name }, *dry_run),
    };
    // A node that has taken part in no membership does not know what others have
    // done.
    let Some(record) = record.filter(|record| record.cluster == config.cluster.name) else {
        return Err(Failure::new(
            Exit::Unsafe,
            format!(
                "no agent has run here yet, so whether everybody has generation {} can't be told: write the nodes \
                 into {} by hand if no agent has run anywhere, else make the change on a node that has one",
                config.cluster.generation,
                args.config.display()
            ),
        ));
    };
    if record.generation != config.cluster.generation {
        return Err(Failure::new(
            Exit::Unsafe,
            format!(
                "{} has generation {}, and the agent takes part in generation {}: restart the agent first",
                args.config.display(),
                config.cluster.generation,
                record.generation
            ),
        ));
    }
    let new = edited(&text, &config, &edit)?;
    let next = Config::parse_with_more(&new, &args.config, &config.node_name)
        .map_err(|e| Failure::new(Exit::Config, format!("the change would not do: {e}")))?;
    record.followed_by(Membership::of(&next)).map_err(|e| Failure::new(Exit::Unsafe, e.to_string()))?;
    if dry_run {
        let (what, name) = match edit {
            Edit::Add { name, .. } => ("added to", name),
            Edit::Remove { name } => ("removed from", name),
        };
        let (file, generation) = (args.config.display(), next.cluster.generation);
        let would = format!("{name} would be {what} {file}, as generation {generation} of the membership");
        return dry_run::tell(&[would], format);
    }
    replace(&args.config, &new).map_err(|e| {
        let exit = exit_of_write(&e);
        let is_denied = exit == Exit::NoPermission;
        let mend = if is_denied { "run it as root" } else { "mend that and run it again" };
        Failure::new(
            exit,
            format!("{} can't be written ({e}), and nothing was changed: {mend}", args.config.display()),
        )
    })?;
    said(&args.config, &next, &edit, format)
}

/// The change to make.
enum Edit<'a> {
    Add { name: &'a str, address: SocketAddr, witness: bool, observer: bool },
    Remove { name: &'a str },
}

/// The text of the configuration after the change. Comments and order stay.
fn edited(text: &str, config: &Config, edit: &Edit<'_>) -> Result<String, Failure> {
    let broken = |what: &str| {
        Failure::new(Exit::Config, format!("{what}: write the nodes as [[cluster.node]] tables"))
    };
    let mut document: DocumentMut =
        text.parse().map_err(|e| Failure::new(Exit::Config, format!("the configuration is no TOML: {e}")))?;
    let cluster = document
        .get_mut("cluster")
        .and_then(Item::as_table_mut)
        .ok_or_else(|| broken("[cluster] is no table"))?;
    let next =
        config.cluster.generation.checked_add(1).ok_or_else(|| {
            Failure::new(Exit::Config, "the generation is the last that there is".to_owned())
        })?;
    cluster["generation"] = value(i64::from(next));
    let nodes = cluster
        .get_mut("node")
        .and_then(Item::as_array_of_tables_mut)
        .ok_or_else(|| broken("the nodes can't be edited"))?;
    // Writes all ids out from now on: a node's place among the names differs
    // between the two generations.
    for table in nodes.iter_mut() {
        let id = table.get("name").and_then(Item::as_str).and_then(|name| id_of(config, name));
        if let Some(id) = id {
            table["id"] = value(i64::from(id));
        }
    }
    match *edit {
        Edit::Add { name, address, witness, observer } => {
            if id_of(config, name).is_some() {
                return Err(Failure::new(
                    Exit::Config,
                    format!("there is a node {name:?} already: choose another name"),
                ));
            }
            let mut table = Table::new();
            table["name"] = value(name);
            table["address"] = value(address.to_string());
            if witness {
                table["witness"] = value(true);
            }
            if observer {
                table["observer"] = value(true);
            }
            table["id"] = value(i64::from(free_id(config)?));
            nodes.push(table);
        }
        Edit::Remove { name } => {
            remove(nodes, config, name)?;
            remove_priorities(&mut document, name);
        }
    }
    Ok(document.to_string())
}

fn remove(nodes: &mut ArrayOfTables, config: &Config, name: &str) -> Result<(), Failure> {
    if name == config.node_name {
        return Err(Failure::new(
            Exit::Unsafe,
            format!(
                "{name} is this very node: stop its agent (`vip-ctl unload` afterwards) and remove it on the others"
            ),
        ));
    }
    let place = nodes.iter().position(|table| table.get("name").and_then(Item::as_str) == Some(name));
    let Some(place) = place else {
        lookup::node(name, &config.cluster.nodes, |_| true)?;
        return Ok(());
    };
    nodes.remove(place);
    Ok(())
}

/// Removes the priorities of a node that is gone.
fn remove_priorities(document: &mut DocumentMut, name: &str) {
    let Some(groups) = document.get_mut("group").and_then(Item::as_array_of_tables_mut) else { return };
    for group in groups.iter_mut() {
        if let Some(priorities) = group.get_mut("priority").and_then(Item::as_table_like_mut) {
            priorities.remove(name);
        }
    }
}

fn id_of(config: &Config, name: &str) -> Option<u8> {
    config.cluster.nodes.iter().find(|node| node.name == name).map(|node| node.id)
}

/// An id that no node has: the one after the highest, so that no node soon gets
/// the id of one that was removed.
fn free_id(config: &Config) -> Result<u8, Failure> {
    let taken = |id: &u8| config.cluster.nodes.iter().any(|node| node.id == *id);
    let last = u8::try_from(NODES_MAX - 1).unwrap_or(u8::MAX);
    let after = config.cluster.nodes.iter().map(|node| node.id).max().map_or(0, |id| id.saturating_add(1));
    (after..=last)
        .chain(0..=last)
        .find(|id| !taken(id))
        .ok_or_else(|| Failure::new(Exit::Config, format!("there are {NODES_MAX} nodes already")))
}

/// Replaces the file as a whole, with the permissions that it has.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Keeps a symbolic link.
    let path = path.canonicalize()?;
    let mode = fs::metadata(&path)?.permissions().mode();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = fs::write(&new, text)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        // Removes whatever was written; the first error is the one to report.
        let _ = fs::remove_file(&new);
    }
    written
}

fn said(path: &Path, config: &Config, edit: &Edit<'_>, format: Format) -> Result<Exit, Failure> {
    let generation = config.cluster.generation;
    if format == Format::Json {
        print_json(&json!({ "file": path.display().to_string(), "generation": generation }))?;
        return Ok(Exit::Ok);
    }
    let file = path.display();
    let (what, first, last) = match edit {
        Edit::Add { name, .. } => (
            format!("added {name}"),
            String::new(),
            format!("give {name} the same [cluster] and [[group]] sections and start its agent"),
        ),
        Edit::Remove { name } => (
            format!("removed {name}"),
            format!(
                "put {name} on standby (`vip-ctl standby {name}`), so that it holds nothing, but let its agent vote on; "
            ),
            format!("stop the agent on {name}"),
        ),
    };
    print(&format!(
        "{what} in {file}: this is generation {generation} of the membership. Now,\n\
         1. {first}make the same change on every other node (the same command, or copy the [cluster] section);\n\
         2. restart the agents one at a time, each once `vip-ctl status` on the last one does not say that it has no vote yet; before a holder's, `vip-ctl switchover` to a node that has it;\n\
         3. {last};\n\
         4. `vip-ctl member list` shows when every voter has it, and only then the next change can be made.\n"
    ));
    Ok(Exit::Ok)
}

fn list(config: &Config, record: Option<&Membership>, format: Format) -> Result<Exit, Failure> {
    let generation = config.cluster.generation;
    let current = record.filter(|record| record.generation == generation);
    let confirmed = |name: &str| current.is_some_and(|record| record.confirmed.contains(name));
    if format == Format::Json {
        let nodes = config.cluster.nodes.iter().map(|node| {
            json!({
                "name": node.name,
                "id": node.id,
                "address": node.address.to_string(),
                "votes": node.role.votes(),
                "confirmed": confirmed(&node.name),
            })
        });
        print_json(
            &json!({ "generation": generation, "in_use": current.is_some(), "nodes": nodes.collect::<Vec<_>>() }),
        )?;
        return Ok(Exit::Ok);
    }
    let state = match record {
        None => "no agent has run here yet".to_owned(),
        Some(_) if current.is_some() => "in use here".to_owned(),
        Some(record) => {
            format!("not in use here yet: the agent took part in generation {}", record.generation)
        }
    };
    print(&format!("generation {generation} of the membership, {state}\n"));
    for node in &config.cluster.nodes {
        let state = match (node.role.votes(), confirmed(&node.name)) {
            (false, _) => "no vote",
            (true, true) => "confirmed",
            (true, false) => "not confirmed yet",
        };
        print(&format!("  {:<16} {:<22} id {:<3} {state}\n", node.name, node.address.to_string(), node.id));
    }
    Ok(Exit::Ok)
}
