//! Requests of other threads, done on the loop's own thread.

use vip_lease::{Counts, Io as _, Snapshot};

use super::{Ask, Running, mail::make_room};

impl Running {
    /// Does what another thread asks for.
    pub(super) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Command(command, table, reply) => self.core.command(command, table, reply),
            Ask::Foresee(command, table, reply) => {
                // The thread that asked may have gone away.
                let _ = reply.send(self.core.foresee(command, table));
            }
            Ask::Regroup(regroup) => {
                let groups = regroup.groups.len();
                self.core.regroup(*regroup, |io, index| {
                    if let Some(plane) = &mut io.plane {
                        plane.regroup(index);
                    }
                    // The socket counts what is lost for lack of room.
                    let _ = make_room(&io.socket, groups, io.addresses.len());
                });
            }
            Ask::Announce(label) => self.core.announce_again(label),
            Ask::AnnounceAll => self.core.io.announce_all(),
            Ask::Status(reply) => {
                let _ = reply.send(self.snapshot());
            }
            Ask::Ceiling(ceiling) => self.core.ceiling(ceiling),
            Ask::Eligible(groups) => {
                for (group, word) in groups {
                    self.core.eligible(group, word);
                }
            }
            Ask::HookEnded(hook, ticket, well) => self.core.hook_ended(hook, ticket, well),
            Ask::Paths(ends, seen) => self.core.say_paths(&ends, seen),
            Ask::Unheard(vips) => {
                // Groups may have got other places meanwhile: those of now count.
                let plane = self.core.io.plane.as_ref();
                let id = |index| plane.and_then(|plane| plane.groups.get(&index).copied());
                let vips = vips.into_iter().filter_map(|(index, vip)| Some((id(index)?, vip))).collect();
                self.core.unheard(vips);
            }
            Ask::Stop => self.core.stop(),
            Ask::Leave => self.core.leave(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let snapshot = self.core.snapshot();
        let (counts, sent) = (snapshot.counts, self.core.io.sent);
        let unsent = counts.unsent + sent.unsent;
        let counts = Counts { sent: sent.sent, unsent, dropped: self.dropped(), ..counts };
        Snapshot { counts, ..snapshot }
    }
}
