//! A host's disk, and how the agent writes it: late, one record after the other,
//! each whole or not at all, and none if the process ends before. Now and then a
//! disk is full.

use std::time::Duration;

use vip_engine::{ByGroup, Epoch, Remembered};

use super::{
    agent::Ask,
    check::Violation,
    world::{Event, World},
};

/// A host's disk, and what is on its way there.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// Outlives the process and the host. Its floor is not used: it is as high
    /// as the ceiling.
    pub written: Remembered,
    /// What the process would write now, and the floor that it was told.
    pub known: Remembered,
    /// Is a record being written?
    pub is_writing: bool,
}

impl Disk {
    /// An empty disk.
    pub fn new(groups: usize) -> Self {
        let empty = Remembered {
            epochs: ByGroup::from_fn(groups, |_| Epoch(0)),
            ceiling: Epoch(0),
            ..Remembered::default()
        };
        Self { written: empty.clone(), known: empty, is_writing: false }
    }
}

impl World {
    /// What a process that starts is told of former ones.
    pub(super) fn remembered(&mut self, index: usize) -> Remembered {
        let disk = &mut self.nodes[index].disk;
        disk.is_writing = false;
        disk.known = Remembered { floor: disk.written.ceiling, ..disk.written.clone() };
        disk.known.clone()
    }

    /// The process has learned something that shall outlive it.
    pub(super) fn write_later(&mut self, index: usize) {
        let delay = Duration::from_nanos(self.rng.below(self.plan.disk_ns + 1));
        let node = &mut self.nodes[index];
        if std::mem::replace(&mut node.disk.is_writing, true) {
            return;
        }
        let (life, record) = (node.life, Box::new(node.disk.known.clone()));
        self.push(self.now.plus(delay), Event::Written { node: index, life, record });
    }

    /// The disk has room again: what waits is written.
    pub(super) fn write_now(&mut self, index: usize) -> Result<(), Violation> {
        let disk = &self.nodes[index].disk;
        if disk.is_writing && self.nodes[index].agent.is_some() {
            let record = disk.known.clone();
            return self.written(index, record);
        }
        Ok(())
    }

    /// A record is on the disk.
    pub(super) fn written(&mut self, index: usize, record: Remembered) -> Result<(), Violation> {
        let is_full = self.rng.chance(self.plan.disk_full);
        let disk = &mut self.nodes[index].disk;
        disk.is_writing = false;
        let ceiling = record.ceiling;
        let is_old = disk.known == record;
        if !is_full {
            disk.written = record;
        }
        if is_full || !is_old {
            self.write_later(index);
        }
        if is_full { Ok(()) } else { self.ask(index, Ask::Ceiling(ceiling)) }
    }

    /// The process ends in good order: its last record has everything.
    pub(super) fn write_last(&mut self, index: usize) {
        let is_full = self.rng.chance(self.plan.disk_full);
        let disk = &mut self.nodes[index].disk;
        if !is_full {
            disk.written = Remembered { ceiling: disk.known.floor, ..disk.known.clone() };
        }
    }
}
