//! Another set of groups for a running engine. Groups that stay keep their votes
//! and leases and notice nothing. The engine does not know their VIPs
//! ([`super::label`] is about those).

use vip_common::BootNs;

use super::{
    ByGroup, Engine,
    config::{Epoch, GroupId, GroupSpec},
    group::Group,
    group_set::GroupSet,
    io::Reason,
    mutant::Mutant,
    timers::Timers,
};

/// A group of the new set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Its number so far; `None` for a group that is new here.
    pub was: Option<GroupId>,
    /// What it is like.
    pub spec: GroupSpec,
    /// The highest epoch known of it, if it is new here.
    pub epoch: Epoch,
}

impl Engine {
    /// Releases a group that will no longer exist, to nobody. The caller does the
    /// outputs before [`Engine::reload`], which gives new numbers.
    pub fn retire(&mut self, id: GroupId, now: BootNs) {
        self.pass(now);
        if let Some(group) = self.groups.get_mut(id) {
            group.abstaining = true;
            if group.lease.is_some() && !self.node.broken.is(Mutant::RetireKeeps) {
                group.release(None, Reason::Removed, &mut self.node);
            } else {
                group.attempt = None;
                group.clean_up(&mut self.node);
            }
            self.note(id);
        }
        self.settle(self.node.broken.is(Mutant::ReloadJudges));
    }

    /// Goes on with another set of groups; a group's place is its new number. The
    /// caller must have taken all outputs. The engine refuses commands about
    /// groups that are gone.
    ///
    /// A group that is new here is silent for T_accept: this node may have had it
    /// before, or another group with its VIPs, and have forgotten its votes.
    ///
    /// # Panics
    /// If there are more than [`super::GROUPS_MAX`] groups, or outputs left.
    pub fn reload(&mut self, groups: ByGroup<Reloaded>, now: BootNs) {
        assert!(groups.len() <= super::GROUPS_MAX, "more than {} groups", super::GROUPS_MAX);
        assert!(self.node.outputs.is_empty(), "outputs with old numbers are left");
        self.pass(now);
        let was: ByGroup<_> = groups.iter().map(|group| group.was).collect();
        self.renumber_commands(|old| was.find(|was| *was == Some(old)));
        self.node.renumber(&was);
        let mut old: ByGroup<_> = std::mem::take(&mut self.groups).into_iter().map(Some).collect();
        let mut epochs = ByGroup::new();
        self.node.config.groups = groups
            .into_iter()
            .map(|group| {
                epochs.push(group.epoch);
                group.spec
            })
            .collect();
        self.node.config.remembered.epochs = epochs;
        for (id, was) in was.with_ids() {
            let kept = was.and_then(|was| old.get_mut(was)).and_then(Option::take);
            let group = match kept {
                Some(mut group) => {
                    group.id = id;
                    group.set_mute(false, &mut self.node);
                    group.rank = self.node.own_rank(id);
                    group
                }
                None => {
                    // This node may have had it before, with other VIPs or votes.
                    let silent_until = self.node.now.plus(self.node.timing.accept);
                    let is_loud = self.node.broken.is(Mutant::NewGroupVotes);
                    let silent_until = if is_loud { self.node.now } else { silent_until };
                    Group::new(id, silent_until.max(self.node.silent_until), &self.node)
                }
            };
            self.groups.push(group);
        }
        self.timers = Timers::new(self.groups.len(), now);
        self.unjudged = GroupSet::none_of(self.groups.len());
        self.node.heartbeat_at = self.node.now;
        self.note_all();
        self.settle(self.node.broken.is(Mutant::ReloadJudges));
    }

    /// The next [`super::Input::Wake`] judges what follows from silence: messages
    /// may have come since the last one.
    fn pass(&mut self, now: BootNs) {
        if self.node.broken.is(Mutant::ReloadJudges) {
            self.node.advance(now);
        } else {
            self.node.pass(now);
        }
    }
}
