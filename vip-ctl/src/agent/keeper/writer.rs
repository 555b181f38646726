//! What a node remembers, written on a thread of its own: nobody waits for it,
//! and a disk that is slow must not hold up who says whether this node can
//! serve.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use tracing::error;

use crate::agent::memory::Memory;

/// The thread. What it was told last is written when this has been dropped.
pub(super) struct Writer {
    orders: Option<Sender<Memory>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread, for the records in this directory.
    ///
    /// # Errors
    /// If there can't be a thread.
    pub(super) fn start(state_dir: PathBuf) -> io::Result<Self> {
        let (orders, orders_rx) = channel();
        let body = move || write_all(&state_dir, &orders_rx);
        let thread = thread::Builder::new().name("memory".into()).spawn(body)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Has this written, unless another comes before its turn.
    pub(super) fn write(&self, memory: &Memory) {
        if let Some(orders) = &self.orders {
            // Only its panic ends the thread before this value.
            let _ = orders.send(memory.clone());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was told on its own.
            let _ = thread.join();
        }
    }
}

fn write_all(state_dir: &std::path::Path, orders: &Receiver<Memory>) {
    while let Ok(memory) = orders.recv() {
        // The latest has everything that those before it had.
        let memory = orders.try_iter().last().unwrap_or(memory);
        if let Err(e) = memory.store(state_dir) {
            error!(
                "epochs, standby and pause could not be written to {} ({e}): a restart of this agent would forget them",
                state_dir.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_on_disk_when_the_writer_is_gone() {
        let dir = std::env::temp_dir().join(format!("vip-writer-{}", std::process::id()));
        let writer = Writer::start(dir.clone()).unwrap();
        let memory = |version| Memory { pause_version: version, ..Memory::default() };
        for version in 1..=100 {
            writer.write(&memory(version));
        }
        drop(writer);
        assert_eq!(Memory::load(&dir).unwrap(), memory(100));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
