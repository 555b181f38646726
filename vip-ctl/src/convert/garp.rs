//! How often VIPs are announced: keepalived's settings of an instance, or its defaults for
//! all of them, become those of `[node]`.

use std::time::Duration;

use super::{
    Notes,
    out::Out,
    read::{Lined, Old, number, seconds},
    tree::Entry,
    write::{delay_of, time},
};
use crate::config::{DELAY_MAX, INTERVAL_MAX, REFRESH_MIN, REPEAT_MAX};

/// What an instance says, or `global_defs` for all.
#[derive(Clone, Debug, Default)]
pub(super) struct Garp {
    /// How many are sent at a takeover, the first among them.
    repeat: Option<Lined<u32>>,
    /// After how many seconds as many are sent once more.
    delay: Option<Lined<f64>>,
    /// How many seconds are between any two after that; zero: none are sent.
    refresh: Option<Lined<f64>>,
    /// How many seconds are between two frames.
    interval: Option<Lined<f64>>,
}

impl Garp {
    /// Reads a key of an instance, or one of `global_defs` without its `vrrp_`; false if it
    /// is another one.
    pub(super) fn read(&mut self, key: &str, entry: &Entry, notes: &mut Notes) -> bool {
        match key {
            "garp_master_repeat" => self.repeat = number(entry, notes),
            "garp_master_delay" => self.delay = seconds(entry, notes),
            "garp_master_refresh" => self.refresh = seconds(entry, notes),
            "garp_interval" => self.interval = seconds(entry, notes),
            _ => return false,
        }
        true
    }
}

/// Writes the settings into `[node]`.
pub(super) fn write(out: &mut Out, old: &Old, notes: &mut Notes) {
    if let Some(repeat) = chosen(old, "garp_master_repeat", |garp| garp.repeat.as_ref(), notes) {
        // Here it is those after the first.
        let more = repeat.value.saturating_sub(1).min(REPEAT_MAX);
        if more == REPEAT_MAX {
            notes.changed(
                repeat.line,
                format!("garp_master_repeat {} is {more} here: no more can be", repeat.value),
            );
        }
        out.say(repeat.line, format!("garp_master_repeat = {more}"));
    }
    for (key, of, max) in TIMES {
        let Some(written) = chosen(old, key, *of, notes) else { continue };
        let mut time_of = delay_of(key, written, *max, notes);
        // Zero is what keepalived does anyway.
        if time_of.is_zero() {
            continue;
        }
        if *key == "garp_master_refresh" {
            time_of = time_of.max(REFRESH_MIN);
            notes.changed(
                written.line,
                "VIPs are announced each second here, unless somebody says so: take garp_master_refresh out if no switch minds",
            );
        }
        out.say(written.line, format!("{key} = {}", time(time_of)));
    }
}

/// A key, where it is, and the most that it can be here.
type Time = (&'static str, fn(&Garp) -> Option<&Lined<f64>>, Duration);

const TIMES: &[Time] = &[
    ("garp_master_delay", |garp| garp.delay.as_ref(), DELAY_MAX),
    ("garp_master_refresh", |garp| garp.refresh.as_ref(), DELAY_MAX),
    ("garp_interval", |garp| garp.interval.as_ref(), INTERVAL_MAX),
];

/// The one value for the node: that of the first instance that has one, or else the default
/// for all of them.
fn chosen<'a, T: PartialEq>(
    old: &'a Old,
    key: &str,
    of: impl Fn(&'a Garp) -> Option<&'a Lined<T>>,
    notes: &mut Notes,
) -> Option<&'a Lined<T>> {
    let mut own = old.instances.iter().filter_map(|instance| of(&instance.garp));
    let first = own.next();
    if let Some(first) = first {
        for other in own.filter(|other| other.value != first.value) {
            notes.lost(
                other.line,
                format!("{key} is one for all groups of a node here: that of line {} is taken", first.line),
            );
        }
    }
    first.or_else(|| of(&old.garp))
}
