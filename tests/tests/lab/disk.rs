//! The state directories of all nodes are on full disks: no holder loses its lease, and no epoch
//! is given twice.

use std::{fs, io::Write as _, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts small disks at `dirs`, which only this thread and what it starts can see.
fn small_disks<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for dir in dirs {
        fs::create_dir_all(dir)?;
        mount(Some("disk"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=512k"))?;
    }
    Ok(())
}

/// Fills the disk.
fn fill(dir: &Path) -> Result<()> {
    let mut file = fs::File::create(dir.join("somebodys.log"))?;
    for _ in 0..4096 {
        if file.write_all(&[b'x'; 1024]).is_err() {
            return Ok(());
        }
    }
    bail!("the disk has no end")
}

#[lab_test]
fn on_full_disks_epochs_go_on_rising_and_a_holder_is_found() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    // The disks disappear with the thread, before the lab is removed.
    let tested = std::thread::scope(|scope| scope.spawn(|| test(&lab)).join());
    tested.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn test(lab: &Lab) -> Result<()> {
    let dirs: Vec<_> = lab.nodes().iter().map(|node| node.state_dir()).collect();
    small_disks(dirs.iter().map(|dir| dir.as_path()))?;
    lab.start_agents(PATIENCE)?;
    let epoch = || -> Result<u64> {
        let holder = lab.wait_holder(GROUP, PATIENCE)?;
        let status = holder.status()?;
        status.group(GROUP).and_then(|group| group.epoch).context("a holder has an epoch")
    };
    let mut epochs = vec![epoch()?];
    for dir in &dirs {
        fill(dir)?;
    }
    // Each round the agents lose what they had not written, and use up more than one ceiling of
    // epochs.
    for _ in 0..3 {
        for node in lab.nodes() {
            node.kill_agent()?;
        }
        lab.start_agents(PATIENCE)?;
        epochs.push(epoch()?);
        let asked = lab.wait_holder(GROUP, PATIENCE)?;
        asked.succeed(&["switchover", GROUP])?;
        epochs.push(epoch()?);
    }
    ensure!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    let margin = epochs.last().zip(epochs.first()).map(|(last, first)| last - first);
    ensure!(margin.is_some_and(|margin| margin > 2_000), "the agents were not killed: {epochs:?}");
    for node in lab.nodes() {
        ensure!(fs::write(node.state_dir().join("more"), [b'x'; 8192]).is_err(), "the disk is not full");
    }

    // If nothing can be recorded, the holder keeps its lease, and another node can take over from
    // it.
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    for dir in &dirs {
        let (none, flags) = (None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        mount(none, dir.as_path(), none, flags, none)?;
    }
    wait_until(clock::now().plus(LEASE * 5), || false);
    ensure!(
        lab.wait_holder(GROUP, PATIENCE)?.name() == holder.name(),
        "a disk that can't be written moved it"
    );
    holder.succeed(&["switchover", GROUP])?;
    let next = lab.wait_holder(GROUP, PATIENCE)?;
    ensure!(next.name() != holder.name());
    // An agent that starts on such a disk cannot record what it accepts: it votes for no new
    // holder, and warns of that.
    holder.kill_agent()?;
    holder.start_agent()?;
    lab.wait_quorate(PATIENCE)?;
    let warnings = holder.status()?.warnings;
    ensure!(warnings.iter().any(|warning| warning.contains("votes for no new holder")), "{warnings:?}");
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == next.name());
    Ok(())
}
