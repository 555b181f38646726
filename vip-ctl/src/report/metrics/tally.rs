//! The metrics of changes, gaps and hooks.

use prometheus_client::registry::Registry;

use super::{CounterFamily, Teller, and, histogram};
use crate::events::Tally;

const GAPS: (&str, &str) = (
    "vip_failover_duration_seconds",
    "From the end of the lease before, as far as this node knew, to this node's write into the map",
);

/// Adds them, with the labels of `teller`.
pub(super) fn register(registry: &mut Registry, teller: &Teller, tally: &Tally) {
    let transitions = CounterFamily::default();
    registry.register(
        "vip_transitions",
        "Changes of a group's state on this node, or of its holder, by reason",
        transitions.clone(),
    );
    let failures = CounterFamily::default();
    registry.register("vip_hook_failures", "Hooks that failed or took too long", failures.clone());
    for (family, by_group, label) in
        [(&transitions, &tally.transitions, "reason"), (&failures, &tally.hook_failures, "hook")]
    {
        for (group, counts) in by_group {
            let of_group = teller.group(group);
            for (what, count) in counts {
                family.get_or_create(&and(&of_group, label, what)).inc_by(*count);
            }
        }
    }
    let lost = CounterFamily::default();
    registry.register("vip_history_lost", "Records that the history lost to a slow disk", lost.clone());
    lost.get_or_create(&teller.node()).inc_by(tally.history_lost);
    histogram::register(registry, GAPS, teller.node(), tally.gaps());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn transitions_failures_and_gaps_are_in_the_text() {
        let mut tally = Tally { gaps_sum_ms: 1_203, history_lost: 5, ..Tally::default() };
        tally.transitions.entry("db".into()).or_default().insert("elected".into(), 2);
        tally.hook_failures.entry("db".into()).or_default().insert("pre_promote".into(), 1);
        (tally.gaps.0[2], tally.gaps.0[10]) = (1, 1);
        let status = Status {
            node: "db-a".into(),
            cluster: Some("shop".into()),
            tally: Some(tally),
            ..Status::default()
        };
        let text = crate::report::metrics::text(&status).expect("formatted");
        for line in [
            "vip_transitions_total{cluster=\"shop\",group=\"db\",node=\"db-a\",reason=\"elected\"} 2",
            "vip_hook_failures_total{cluster=\"shop\",group=\"db\",node=\"db-a\",hook=\"pre_promote\"} 1",
            "vip_history_lost_total{cluster=\"shop\",node=\"db-a\"} 5",
            "vip_failover_duration_seconds_bucket{le=\"0.002\",cluster=\"shop\",node=\"db-a\"} 0",
            "vip_failover_duration_seconds_bucket{le=\"0.005\",cluster=\"shop\",node=\"db-a\"} 1",
            "vip_failover_duration_seconds_bucket{le=\"+Inf\",cluster=\"shop\",node=\"db-a\"} 2",
            "vip_failover_duration_seconds_sum{cluster=\"shop\",node=\"db-a\"} 1.203",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}
