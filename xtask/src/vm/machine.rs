//! The virtual machine: QEMU without acceleration, a kernel and its first root. It
//! has two serial lines: the kernel's goes into a log, what the tests print is the
//! other one's.

use std::{
    cell::Cell,
    io::{self, Write as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::kernel::Unpacked;
use crate::{
    process,
    setup::VmTools,
    tally::{Reader, Tally, parse_skips},
};

/// A kernel that has not started its first program by then hangs. It takes four seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What the machine gets besides its tests' own limit, which it keeps itself.
const REST: Duration = Duration::from_secs(60);

/// In megabytes. Twice that of the largest test, and the root is in there too.
const MEMORY: &str = "2048";

/// How many pairs of network cards it has, each with a cable between them: a cluster of three
/// nodes on real drivers has one for each node.
const CARD_PAIRS: u8 = 3;

/// What the first program says before the tests and after them.
pub(super) const UP: &str = "vm: up";
pub(super) const ENDED: &str = "vm: the tests ended with ";

/// An emulator, and the kernel to boot.
pub(super) struct Machine {
    tools: VmTools,
    kernel: Unpacked,
}

/// What became of a run.
pub(super) struct Ran {
    /// From the emulator's start to the first program's.
    pub(super) up: Duration,
    pub(super) tally: Tally,
    /// The tests that failed, if a machine that stands still may have made them fail.
    pub(super) excusable: Vec<String>,
}

impl Machine {
    pub(super) fn find(tools: VmTools, kernel: Unpacked) -> anyhow::Result<Self> {
        if !kernel.image().is_file() {
            bail!("{} is missing: remove {}", kernel.image().display(), kernel.root().display());
        }
        Ok(Self { tools, kernel })
    }

    pub(super) fn release(&self) -> &str {
        self.kernel.release()
    }

    pub(super) fn tools(&self) -> &VmTools {
        &self.tools
    }

    pub(super) fn kernel(&self) -> &Unpacked {
        &self.kernel
    }

    /// Boots, shows what the tests print, and waits until the machine is off.
    /// `limit` is that of the tests; `log` gets what the kernel says.
    ///
    /// # Errors
    /// When the emulator cannot be run, or the machine does not come up.
    pub(super) fn run(&self, initrd: &Path, limit: Duration, log: &Path) -> anyhow::Result<Ran> {
        let begun = Instant::now();
        let up = Cell::new(None::<Duration>);
        let mut reader = Reader::default();
        let mut printed = Vec::new();
        let status = process::run_streamed_until(
            &mut self.command(initrd, log),
            |running| match up.get() {
                None => running > BOOT_LIMIT,
                Some(up) => running > up + limit + REST,
            },
            |bytes| {
                let mut stdout = io::stdout().lock();
                // A reader that went away (`| head`) is no reason to leave tests half done.
                let _unread = stdout.write_all(bytes).and_then(|()| stdout.flush());
                printed.extend_from_slice(bytes);
                reader.feed(bytes);
                if up.get().is_none() && String::from_utf8_lossy(&printed).contains(UP) {
                    up.set(Some(begun.elapsed()));
                }
            },
        )?;
        let printed = String::from_utf8_lossy(&printed);
        let Some(up) = up.get() else {
            eprintln!("--- the end of {}:\n{}\n---", log.display(), process::tail(log, 30));
            bail!("Linux {} has not come up within {} s ({status})", self.release(), BOOT_LIMIT.as_secs());
        };
        let code = printed.lines().find_map(|line| line.strip_prefix(ENDED)).map(str::trim);
        if code.is_none() {
            eprintln!("--- the end of {}:\n{}\n---", log.display(), process::tail(log, 30));
            eprintln!("xtask: the virtual machine ended before its tests ({status})");
        }
        let skipped = parse_skips(&printed).len();
        let excusable = reader.excusable().map(<[String]>::to_vec).unwrap_or_default();
        Ok(Ran { up, tally: reader.finish(code == Some("0"), skipped), excusable })
    }

    fn command(&self, initrd: &Path, log: &Path) -> Command {
        let mut command = self.tools.emulator();
        // KVM is not asked for: on a machine that is virtual itself it may hang.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyS0 loglevel=5 panic=-1 mitigations=off"]);
        command.arg("-serial").arg(format!("file:{}", log.display())).args(["-serial", "stdio"]);
        command.args(cards()).args(card_with_standby());
        command
    }
}

/// The emulator's arguments for a card that the guest's kernel puts a failover device on: a
/// card of virtio that says that it is a standby, and one of another driver with the same
/// hardware address. A third is the other end of their cable (`tests/src/lab/cards.rs`).
fn card_with_standby() -> Vec<String> {
    let card = |port: u8, model: &str, end: u8| {
        let cable = format!("hubport,id=standby{port},hubid={CARD_PAIRS}");
        let card = format!("{model},netdev=standby{port},mac=02:76:69:71:00:{end:02x},romfile=");
        ["-netdev".to_owned(), cable, "-device".to_owned(), card]
    };
    let cards =
        [card(0, "virtio-net-pci,failover=on", 0), card(1, "vmxnet3", 0), card(2, "virtio-net-pci", 1)];
    cards.into_iter().flatten().collect()
}

/// The emulator's arguments for [`CARD_PAIRS`]. The lab knows their ends by their hardware
/// addresses (`tests/src/lab/cards.rs`): 02:76:69:70, the pair, and which of its ends.
fn cards() -> Vec<String> {
    let end = |pair, end| {
        let cable = format!("hubport,id=card{pair}{end},hubid={pair}");
        let mac = format!("02:76:69:70:{pair:02x}:{end:02x}");
        let card = format!("virtio-net-pci,netdev=card{pair}{end},mac={mac},romfile=");
        ["-netdev".to_owned(), cable, "-device".to_owned(), card]
    };
    (0..CARD_PAIRS).flat_map(|pair| [0, 1].map(|which| end(pair, which))).flatten().collect()
}
