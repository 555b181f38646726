//! Writes what a node remembers, on a thread of its own: nobody waits for it, and
//! a slow disk must not hold up the keeper.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::error;

use crate::{engine::EPOCH_MARGIN, records::memory::Memory};

/// How long to wait before writing a record again that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// The thread. It writes its last order before this is dropped.
pub(super) struct Writer {
    orders: Option<Sender<Memory>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread, for the records in this directory; calls `stored` with
    /// each record that is on disk.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(super) fn start(state_dir: PathBuf, stored: impl Fn(&Memory) + Send + 'static) -> io::Result<Self> {
        let (orders, orders_rx) = channel();
        let body = move || write_all(&state_dir, &orders_rx, &stored);
        let thread = thread::Builder::new().name("memory".into()).spawn(body)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Writes this record, unless a newer one comes before its turn.
    pub(super) fn write(&self, memory: &Memory) {
        if let Some(orders) = &self.orders {
            // Only its panic, which ends the process, ends the thread before this value.
            let _ = orders.send(memory.clone());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported elsewhere.
            let _ = thread.join();
        }
    }
}

fn write_all(state_dir: &std::path::Path, orders: &Receiver<Memory>, stored: &impl Fn(&Memory)) {
    let mut unwritten: Option<Memory> = None;
    let mut is_told = false;
    loop {
        let next = match &unwritten {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => orders.recv_timeout(AGAIN),
        };
        let memory = match next {
            // The latest record includes all before it.
            Ok(memory) => orders.try_iter().last().unwrap_or(memory),
            Err(RecvTimeoutError::Timeout) => {
                let Some(memory) = unwritten.take() else { continue };
                memory
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match memory.store(state_dir) {
            Ok(()) => {
                stored(&memory);
                unwritten = None;
                is_told = false;
            }
            Err(e) => {
                if !std::mem::replace(&mut is_told, true) {
                    error!(
                        "epochs, standby and pause could not be written to {} ({e}): a restart of this agent would \
                         forget them, and after {EPOCH_MARGIN} moves this node votes for no more; trying again",
                        state_dir.display()
                    );
                }
                unwritten = Some(memory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_on_disk_when_the_writer_is_gone() {
        let dir = std::env::temp_dir().join(format!("vip-writer-{}", std::process::id()));
        let (told, stored) = channel();
        let writer = Writer::start(dir.clone(), move |memory| told.send(memory.clone()).unwrap()).unwrap();
        let memory = |version| Memory { pause_version: version, ..Memory::default() };
        for version in 1..=100 {
            writer.write(&memory(version));
        }
        drop(writer);
        assert_eq!(Memory::load(&dir).unwrap(), memory(100));
        assert_eq!(stored.iter().last(), Some(memory(100)));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_and_told_then() {
        let dir = std::env::temp_dir().join(format!("vip-writer-again-{}", std::process::id()));
        // In its way.
        std::fs::write(&dir, "").unwrap();
        let (told, stored) = channel();
        let writer = Writer::start(dir.clone(), move |memory| told.send(memory.clone()).unwrap()).unwrap();
        let memory = Memory { ceiling: 5, ..Memory::default() };
        writer.write(&memory);
        assert!(stored.recv_timeout(AGAIN / 2).is_err(), "it is not on disk");
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(stored.recv_timeout(AGAIN * 30), Ok(memory));
        drop(writer);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
