//! How often VIPs are announced, by keepalived's words for it, in `[node]`.

use std::time::Duration;

use super::delay_of;
use crate::config::text::{report::Report, section::Section};

/// The most sets of announcements after the first that can be configured.
pub const REPEAT_MAX: u32 = 100;
/// The longest pause between two frames that can be configured.
pub const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// The shortest refresh that can be configured.
pub const REFRESH_MIN: Duration = Duration::from_millis(100);

/// When gratuitous ARP is sent for the VIPs of a group that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garp {
    /// `garp_master_repeat`: how many times they are announced again right after the takeover.
    pub repeat: u32,
    /// `garp_master_delay`: how long after that all of it is done once more, if at all.
    pub delay: Option<Duration>,
    /// `garp_master_refresh`: how long to wait before each further one, if there are any.
    pub refresh: Option<Duration>,
    /// `garp_interval`: the time between two frames; `None`: bursts at a takeover, and later
    /// as many frames as no network minds.
    pub interval: Option<Duration>,
}

impl Default for Garp {
    fn default() -> Self {
        Self { repeat: 4, delay: None, refresh: Some(Duration::from_secs(1)), interval: None }
    }
}

/// Reads the keys; what is wrong is reported, and as by default.
pub(super) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Garp {
    let default = Garp::default();
    let repeat = section.integer("garp_master_repeat", 0..=REPEAT_MAX, report);
    let mut time = |key| delay_of(section, key, report);
    let delay = time("garp_master_delay").filter(|delay| !delay.is_zero());
    let refresh = time("garp_master_refresh");
    let interval = time("garp_interval");
    let too = |key: &str, wrong: &str, mend: &str| format!("{key} is too {wrong}: write {mend}");
    if let Some(written) = section.get("garp_master_refresh")
        && refresh.is_some_and(|refresh| !refresh.is_zero() && refresh < REFRESH_MIN)
    {
        let mend = "\"100ms\" at least, or \"0s\" for none";
        report.add(written.span(), too("garp_master_refresh", "short", mend));
    }
    if let Some(written) = section.get("garp_interval")
        && interval.is_some_and(|interval| interval > INTERVAL_MAX)
    {
        report.add(written.span(), too("garp_interval", "long", "\"1s\" at most"));
    }
    Garp {
        repeat: repeat.map_or(default.repeat, toml::Spanned::into_inner),
        delay,
        refresh: refresh.map_or(default.refresh, |refresh| (!refresh.is_zero()).then_some(refresh)),
        interval: interval.filter(|interval| !interval.is_zero()),
    }
}
