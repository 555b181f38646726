//! The rough phase: what fate does to nodes and links, blow by blow.

use std::time::Duration;

use vip_engine::{Command, NodeId};
use vip_lease::Eligible;

use super::{
    Violation,
    agent::Ask,
    clock::nanos,
    names::{group_id, node_id},
    world::World,
};

impl World {
    /// Everything that can go wrong, for as long as the plan says.
    pub(super) fn rough_phase(&mut self) -> Result<(), Violation> {
        self.blows = true;
        // Let most clusters come to life first.
        self.blow_later(self.plan.timing.accept * 2);
        let end = self.now.plus(self.plan.timing.accept * 2 + self.plan.rough);
        while self.now < end {
            self.run_until(self.now.plus(self.plan.timing.accept).min(end))?;
            self.check_answers()?;
        }
        self.blows = false;
        Ok(())
    }

    /// Up to three times T_accept, short times more often than long ones.
    fn while_(&mut self) -> Duration {
        let most = nanos(self.plan.timing.accept) * self.rng.between(1, 6) / 2;
        Duration::from_nanos(self.rng.below(most))
    }

    /// One blow, and the next one put on its way.
    pub(super) fn blow(&mut self) -> Result<(), Violation> {
        if !self.blows {
            return Ok(());
        }
        let next = self.rng.below(nanos(self.plan.blow_every) * 2);
        self.blow_later(Duration::from_nanos(next));
        let (count, groups) = (self.nodes.len(), self.plan.groups.len());
        let node = self.rng.index(count);
        let versions = self.plan.versions.len();
        if versions > 1 && self.rng.chance(250) {
            // Mostly to what is new, sometimes back.
            let next = (self.nodes[node].groups.version + 1).min(versions - 1);
            let any = self.rng.index(versions);
            let version = self.rng.pick(&[next, next, any]);
            return self.reload(node, version);
        }
        match self.rng.below(16) {
            0..3 => {
                let to = self.rng.index(count);
                self.cut[node][to] = !self.cut[node][to];
                self.note(|world| {
                    let how = if world.cut[node][to] { "cut" } else { "healed" };
                    format!("link {} to {} is {how}", world.name(node), world.name(to))
                });
                Ok(())
            }
            3 => {
                // Isolated: deaf, dumb or both.
                let (deaf, dumb) = self.rng.pick(&[(true, false), (false, true), (true, true)]);
                for other in (0..count).filter(|&other| other != node) {
                    self.cut[other][node] |= deaf;
                    self.cut[node][other] |= dumb;
                }
                self.note(|world| format!("{:<6} is isolated, deaf: {deaf}, dumb: {dumb}", world.name(node)));
                Ok(())
            }
            4..7 => {
                self.note(|_| "links healed".to_owned());
                self.cut.iter_mut().for_each(|row| row.fill(false));
                Ok(())
            }
            7..9 => {
                if self.nodes[node].stalled_until.is_none() {
                    let how_long = self.while_();
                    self.stall(node, how_long);
                }
                Ok(())
            }
            9..11 => {
                let host = self.rng.chance(300);
                self.kill(node, host)?;
                let pause = self.while_() / 2;
                self.start_later(node, pause);
                Ok(())
            }
            11 => self.ask(node, Ask::Stop),
            12 => {
                let group = self.rng.index(groups);
                let eligible = !self.nodes[node].eligible[group];
                self.nodes[node].eligible[group] = eligible;
                let clings = !eligible && self.rng.chance(500);
                let unfit = if clings { Eligible::Unwell } else { Eligible::No };
                self.tell_eligible(node, group, if eligible { Eligible::Yes } else { unfit })
            }
            _ => {
                let command = self.any_command();
                self.command(node, command).map(|_| ())
            }
        }
    }

    /// Any command, sensible or not.
    fn any_command(&mut self) -> Command {
        let group = group_id(self.rng.index(self.plan.groups.len()));
        // Now and then a node that doesn't exist.
        let to = node_id(self.rng.index(self.nodes.len() + 1));
        let to_or_any = self.rng.pick::<Option<NodeId>>(&[None, Some(to)]);
        match self.rng.below(10) {
            0..3 => Command::Promote { group, to },
            3..5 => Command::Demote { group },
            5..8 => Command::Switchover { group, to: to_or_any },
            8 => {
                let on = self.rng.chance(500);
                Command::Standby { node: to, on, force: on && self.rng.chance(500) }
            }
            _ => Command::Pause { on: self.rng.chance(500) },
        }
    }
}
