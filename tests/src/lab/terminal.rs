//! A terminal for programs that draw on one: a pseudo-terminal with the
//! program at one end and, at the other, an emulator that is read and typed at.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::{clock, wait_until};

/// How long a program may take to draw what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal; killed on drop.
pub struct Terminal {
    child: Child,
    master: File,
    emulator: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts `command`, which has to be one of [`super::Netns::session`], on
    /// a terminal of this size.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or the program can't be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).context("making a pseudo-terminal")?;
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = {
            let _gate = super::cleanup::gate()?;
            command.spawn().context("starting the program on a terminal")?
        };
        // The command holds the other end open as long as it lives.
        drop(command);
        let master = File::from(pty.master);
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut reader, drawn) = (master.try_clone()?, Arc::clone(&emulator));
        std::thread::Builder::new().name("terminal".into()).spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end too: Linux says EIO once nobody has the other end.
            while let Ok(len) = reader.read(&mut bytes)
                && len > 0
            {
                drawn.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..len]);
            }
        })?;
        Ok(Self { child, master, emulator })
    }

    fn emulator(&self) -> MutexGuard<'_, vt100::Parser> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on the screen, a line each.
    #[must_use]
    pub fn screen(&self) -> String {
        self.emulator().screen().contents()
    }

    /// The screen with its colours, as a terminal would be told to draw it.
    #[must_use]
    pub fn formatted(&self) -> Vec<u8> {
        self.emulator().screen().contents_formatted()
    }

    /// Types.
    ///
    /// # Errors
    /// When the program has closed its end.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("typing")
    }

    /// Waits until the screen is as wanted; the screen then.
    ///
    /// # Errors
    /// When it does not become so, with what is there instead.
    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<String> {
        let mut screen = String::new();
        let seen = wait_until(clock::now().plus(PATIENCE), || {
            screen = self.screen();
            wanted(&screen)
        });
        ensure!(seen, "the screen has not shown {what} within {PATIENCE:?}; it shows:\n{screen}");
        Ok(screen)
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal).context("signalling the program")
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it doesn't end.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        let ended = wait_until(clock::now().plus(PATIENCE), || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) if ended => Ok(status),
            _ => bail!("the program has not ended; on the screen is:\n{}", self.screen()),
        }
    }

    /// Whether the terminal is as a shell wants it: lines, echo, a cursor, and
    /// the screen that was there before.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn is_restored(&self) -> Result<bool> {
        let flags = tcgetattr(self.master.as_fd()).context("asking the terminal")?.local_flags;
        let lines = flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        // The program may have ended before its last words were read.
        let shows = wait_until(clock::now().plus(PATIENCE), || !self.is_taken());
        Ok(lines && shows)
    }

    /// Whether the program draws on a screen of its own, or hides the cursor.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let emulator = self.emulator();
        let screen = emulator.screen();
        screen.alternate_screen() || screen.hide_cursor()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
