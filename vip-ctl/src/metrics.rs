//! A status as Prometheus metrics. Every figure comes from a status, so that
//! both always agree.

mod people;

use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use vip_common::counter::COUNTERS;

use crate::{
    agent::lateness::{BOUNDS_US, Lateness},
    dataplane::observe::counter_name,
    report::Status,
};

type Labels = Vec<(&'static str, String)>;
type GaugeFamily = Family<Labels, Gauge>;
type CounterFamily = Family<Labels, Counter>;

/// States that `vip_state` tells, one of them 1.
const STATES: &[&str] = &["active", "promoting", "standby", "fault", "init", "paused", "expired"];

/// The metrics in the OpenMetrics text format.
///
/// # Errors
/// If formatting fails.
pub fn text(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let node = status.node.clone();
    let gauge = |registry: &mut Registry, name: &str, help: &str| {
        let family = GaugeFamily::default();
        registry.register(name, help, family.clone());
        family
    };
    let counter = |registry: &mut Registry, name: &str, help: &str| {
        let family = CounterFamily::default();
        registry.register(name, help, family.clone());
        family
    };
    let up =
        gauge(&mut registry, "vip_up", "1 if the data plane is loaded and on every interface it should be");
    let attached = !status.interfaces.is_empty() && status.interfaces.iter().all(|i| i.xdp.is_some());
    up.get_or_create(&vec![("node", node.clone())]).set(i64::from(attached));
    if let Some(quorate) = status.quorate {
        let family = gauge(&mut registry, "vip_quorate", "1 if a majority of the voters is heard");
        family.get_or_create(&vec![("node", node.clone())]).set(i64::from(quorate));
    }
    let mut flag = |name: &str, help: &str, is_so: bool| {
        gauge(&mut registry, name, help).get_or_create(&vec![("node", node.clone())]).set(i64::from(is_so));
    };
    if status.cluster.is_some() {
        flag("vip_silent", "1 while the agent has just started and has no vote yet", status.silent);
        flag("vip_paused", "1 if automatic moves are switched off in the cluster", status.paused);
        flag(
            "vip_pair",
            "1 in pair mode, where a cut between the nodes can make two holders",
            status.pair.is_some(),
        );
        flag(
            "vip_standby",
            "1 if this node is on standby",
            status.nodes.iter().any(|known| known.name == node && known.standby),
        );
        flag(
            "vip_forced",
            "1 if this node holds a group by force, without a quorum",
            status.groups.iter().any(|group| group.forced),
        );
    }
    if let Some(generation) = status.generation {
        let family = gauge(&mut registry, "vip_generation", "Number of the membership");
        family.get_or_create(&vec![("node", node.clone())]).set(generation.into());
    }
    let state = gauge(&mut registry, "vip_state", "1 for the state that the VIP is in on this node");
    let epoch = gauge(&mut registry, "vip_epoch", "The number of the grant");
    let remaining = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    registry.register("vip_lease_remaining_seconds", "What is left of this node's lease", remaining.clone());
    let packets = counter(&mut registry, "vip_packets", "Frames by class, verdict and reason");
    let replies = counter(&mut registry, "vip_arp_replies", "ARP requests for the VIP that were answered");
    let conflicts =
        counter(&mut registry, "vip_conflicts", "ARP claims of the VIP by others while this node held it");
    for group in &status.groups {
        let of_group = vec![("group", group.name.clone()), ("node", node.clone())];
        if let Some(number) = group.epoch {
            epoch.get_or_create(&of_group).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        if let Some(ms) = group.lease_remaining_ms {
            remaining.get_or_create(&of_group).set(std::time::Duration::from_millis(ms).as_secs_f64());
        }
        for vip in &group.vips {
            let mut of_vip = of_group.clone();
            of_vip.push(("vip", vip.address.clone()));
            for name in STATES {
                let mut labels = of_vip.clone();
                labels.push(("state", (*name).to_owned()));
                state.get_or_create(&labels).set(i64::from(*name == group.state));
            }
            count_frames(&packets, &of_vip, &vip.counters);
            let of = |name: &str| vip.counters.get(name).copied().unwrap_or(0);
            replies.get_or_create(&of_vip).inc_by(of("arp_request_answer_lease"));
            conflicts.get_or_create(&of_vip).inc_by(of("arp_claim_pass_conflict"));
        }
    }
    count_checks(&mut registry, &node, status);
    count_frames(&packets, &vec![("node", node.clone())], &status.counters);
    for (name, value) in &status.agent {
        let family = counter(&mut registry, &format!("vip_{name}"), "Counted by the agent");
        family.get_or_create(&vec![("node", node.clone())]).inc_by(*value);
    }
    let rejected =
        counter(&mut registry, "vip_heartbeats_rejected", "Datagrams dropped without an answer, by reason");
    for (reason, count) in &status.rejected {
        let labels = vec![("node", node.clone()), ("reason", reason.clone())];
        rejected.get_or_create(&labels).inc_by(*count);
    }
    if let Some(renewals) = &status.renewals {
        register_renewals(&mut registry, &node, renewals);
    }
    if let Some(tally) = &status.tally {
        people::register(&mut registry, &node, tally);
    }
    let mut out = String::new();
    encode(&mut out, &registry)?;
    Ok(out)
}

/// A check without a verdict has no `vip_check_up` yet.
fn count_checks(registry: &mut Registry, node: &str, status: &Status) {
    if status.groups.iter().all(|group| group.eligible.is_none()) {
        return;
    }
    let eligible = GaugeFamily::default();
    registry.register("vip_eligible", "1 if this node could take the group", eligible.clone());
    let (up, took) = (GaugeFamily::default(), Family::<Labels, Gauge<f64, AtomicU64>>::default());
    registry.register("vip_check_up", "1 if the health check passes on this node", up.clone());
    registry.register("vip_check_duration_seconds", "How long its last run took", took.clone());
    for group in &status.groups {
        let of_group = vec![("group", group.name.clone()), ("node", node.to_owned())];
        eligible.get_or_create(&of_group).set(i64::from(group.eligible == Some(true)));
        for check in &group.checks {
            let mut labels = of_group.clone();
            labels.push(("check", check.name.clone()));
            if let Some(ok) = check.ok {
                up.get_or_create(&labels).set(i64::from(ok));
            }
            if let Some(ms) = check.took_ms {
                took.get_or_create(&labels).set(ms / 1000.0);
            }
        }
    }
}

/// Lateness was counted elsewhere, so the histogram is filled bucket by bucket.
fn register_renewals(registry: &mut Registry, node: &str, renewals: &Lateness) {
    registry.register_collector(Box::new(Renewals { node: node.to_owned(), lateness: renewals.clone() }));
    let late = CounterFamily::default();
    registry.register(
        "vip_lease_renew_late",
        "Renewals that began later than half of what would have cost the lease",
        late.clone(),
    );
    late.get_or_create(&vec![("node", node.to_owned())]).inc_by(renewals.late);
}

/// The histogram of how late renewals began.
#[derive(Debug)]
struct Renewals {
    node: String,
    lateness: Lateness,
}

impl Collector for Renewals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds =
            BOUNDS_US.iter().map(|us| Duration::from_micros(*us).as_secs_f64()).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.lateness.counts).collect();
        let mut metric = encoder.encode_descriptor(
            "vip_lease_renew_lateness_seconds",
            "How late renewals began",
            None,
            MetricType::Histogram,
        )?;
        let labels = [("node", self.node.clone())];
        let mut metric = metric.encode_family(&labels)?;
        let sum = Duration::from_nanos(self.lateness.sum_ns).as_secs_f64();
        metric.encode_histogram::<NoLabelSet>(sum, self.lateness.count(), &buckets, None)
    }
}

fn count_frames(packets: &CounterFamily, of: &Labels, counters: &BTreeMap<String, u64>) {
    for counter in COUNTERS {
        let Some(frames) = counters.get(&counter_name(*counter)) else { continue };
        let mut labels = of.clone();
        labels.push(("class", counter.class().to_owned()));
        labels.push(("verdict", counter.verdict().to_owned()));
        labels.push(("reason", counter.reason().to_owned()));
        packets.get_or_create(&labels).inc_by(*frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_counts_is_in_the_text() {
        let mut renewals = Lateness::default();
        let margin = Duration::from_millis(30);
        renewals.note(Duration::from_micros(60), margin);
        renewals.note(Duration::from_secs(1), margin);
        let status = Status {
            node: "db-a".into(),
            cluster: Some("shop".into()),
            quorate: Some(true),
            pair: Some("take".into()),
            generation: Some(3),
            rejected: [("bad_tag".to_owned(), 7)].into(),
            renewals: Some(renewals),
            ..Status::default()
        };
        let text = text(&status).expect("formatted");
        for line in [
            "vip_pair{node=\"db-a\"} 1",
            "vip_paused{node=\"db-a\"} 0",
            "vip_generation{node=\"db-a\"} 3",
            "vip_heartbeats_rejected_total{node=\"db-a\",reason=\"bad_tag\"} 7",
            "vip_lease_renew_late_total{node=\"db-a\"} 1",
            "vip_lease_renew_lateness_seconds_bucket{le=\"0.00005\",node=\"db-a\"} 0",
            "vip_lease_renew_lateness_seconds_bucket{le=\"0.0001\",node=\"db-a\"} 1",
            "vip_lease_renew_lateness_seconds_bucket{le=\"+Inf\",node=\"db-a\"} 2",
            "vip_lease_renew_lateness_seconds_count{node=\"db-a\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}
