//! The live line: one line that is rewritten on a terminal, and a line for
//! each thing worth telling where stdout is none. Nothing is measured here.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use vip_common::BootNs;

use crate::lab::clock;
use crate::lab::probe::UdpProber;

/// How often the live line is rewritten.
const REFRESH: Duration = Duration::from_millis(100);

/// Where the demo shows how far it is.
#[derive(Debug)]
pub(super) struct Live {
    terminal: bool,
    start: BootNs,
    due: BootNs,
    line: bool,
}

impl Live {
    pub(super) fn new() -> Self {
        let now = clock::now();
        Self { terminal: std::io::stdout().is_terminal(), start: now, due: now, line: false }
    }

    fn seconds(&self) -> f64 {
        clock::now().since(self.start).as_secs_f64()
    }

    /// Takes the live line away.
    pub(super) fn clear(&mut self) {
        if self.line {
            print!("\r\x1b[2K");
            self.flush();
            self.line = false;
        }
    }

    fn flush(&self) {
        // Who closed stdout does not want to see it.
        let _closed = std::io::stdout().flush();
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.clear();
        println!("[{:6.2} s] {text}", self.seconds());
        self.flush();
    }

    /// Rewrites the live line if that is due; nothing where stdout is no terminal.
    pub(super) fn tick(&mut self, step: &str, udp: &UdpProber) {
        let now = clock::now();
        if !self.terminal || now < self.due {
            return;
        }
        self.due = now.plus(REFRESH);
        let recent = udp.recent(20);
        let answering = recent.iter().rev().find_map(|p| p.answered()).map_or("nobody", |a| &*a.by);
        let (sent, lost) = udp.counts();
        print!(
            "\r\x1b[2K[{:6.2} s] {step}: {answering} answers | {sent} probes, {lost} lost",
            self.seconds()
        );
        self.flush();
        self.line = true;
    }
}
