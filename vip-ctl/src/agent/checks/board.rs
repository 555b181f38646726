//! What this node knows of the groups' health, for `status` and the metrics. The
//! checks and the judge write it. The lease loop never reads it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{config, report::CheckStatus};

/// The board, by group.
#[derive(Debug, Default)]
pub struct Board {
    groups: Mutex<BTreeMap<String, GroupHealth>>,
    /// What peers say of this node's interfaces.
    heard: Mutex<BTreeMap<String, Hearing>>,
}

/// What the peers on its segment say of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearing {
    /// Is this node unwell there, since those who say so are believed?
    pub is_unwell: bool,
    /// A sentence, if the data plane's answers do not arrive at most of them.
    pub trouble: Option<String>,
}

impl Hearing {
    /// Do the data plane's answers arrive at most of them?
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.trouble.is_none()
    }
}

#[derive(Debug, Default)]
struct GroupHealth {
    eligible: bool,
    /// Why the node can't serve it.
    why: Option<String>,
    checks: BTreeMap<String, Record>,
    /// A VIP that nobody answers for, as this node's prober hears.
    unheard: Option<IpAddr>,
}

#[derive(Debug)]
struct Record {
    kind: &'static str,
    ok: Option<bool>,
    since: Instant,
    last_error: Option<String>,
    took: Option<Duration>,
}

/// What the board has of a group.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Could this node take it?
    pub eligible: bool,
    /// Why not.
    pub why: Option<String>,
    /// Its checks, by name.
    pub checks: Vec<CheckStatus>,
    /// A VIP of it that nobody answers for on this node's segment.
    pub unheard: Option<IpAddr>,
}

impl Board {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, GroupHealth>> {
        // A thread that panicked while it had the lock left complete entries behind.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note whether this node can serve a group, and why not.
    pub fn judge(&self, group: &str, eligible: bool, why: Option<String>) {
        let mut entries = self.entries();
        let entry = entries.entry(group.to_owned()).or_default();
        (entry.eligible, entry.why) = (eligible, why);
    }

    /// Takes note which VIP of a group nobody answers for, if there is one.
    pub fn unheard(&self, group: &str, vip: Option<IpAddr>) {
        self.entries().entry(group.to_owned()).or_default().unheard = vip;
    }

    /// Takes note of what peers say of this node's interfaces, by their names.
    pub fn hearing(&self, heard: BTreeMap<String, Hearing>) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    /// What peers say of this node's interfaces.
    #[must_use]
    pub fn heard(&self) -> BTreeMap<String, Hearing> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A check starts.
    pub(super) fn begin(&self, group: &str, check: &config::Check) {
        let record =
            Record { kind: check.kind.name(), ok: None, since: Instant::now(), last_error: None, took: None };
        self.entries().entry(group.to_owned()).or_default().checks.insert(check.name.clone(), record);
    }

    /// A check has been removed.
    pub(super) fn end(&self, group: &str, check: &str) {
        if let Some(entry) = self.entries().get_mut(group) {
            entry.checks.remove(check);
        }
    }

    /// Takes note of a run, and of the verdict if it is a new one.
    pub(super) fn note(
        &self,
        group: &str,
        check: &str,
        result: Result<(), &str>,
        took: Duration,
        verdict: Option<bool>,
    ) {
        let mut entries = self.entries();
        let Some(record) = entries.get_mut(group).and_then(|entry| entry.checks.get_mut(check)) else {
            return;
        };
        record.took = Some(took);
        match result {
            Err(error) => record.last_error = Some(error.to_owned()),
            // An old failure stays visible until it is over.
            Ok(()) if record.ok != Some(false) || verdict == Some(true) => record.last_error = None,
            Ok(()) => {}
        }
        if verdict.is_some() {
            (record.ok, record.since) = (verdict, Instant::now());
        }
    }

    /// What is known of a group.
    #[must_use]
    pub fn see(&self, group: &str) -> Seen {
        let entries = self.entries();
        let Some(entry) = entries.get(group) else { return Seen::default() };
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let checks = entry.checks.iter().map(|(name, record)| CheckStatus {
            name: name.clone(),
            kind: record.kind.to_owned(),
            ok: record.ok,
            since_s: record.since.elapsed().as_secs(),
            last_error: record.last_error.clone(),
            took_ms: record.took.map(millis),
        });
        let checks = checks.collect();
        Seen { eligible: entry.eligible, why: entry.why.clone(), checks, unheard: entry.unheard }
    }
}
