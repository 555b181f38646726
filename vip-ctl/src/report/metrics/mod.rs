//! A status as Prometheus metrics. Every figure comes from a status, so that
//! both always agree.

mod histogram;
mod tally;

use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use vip_common::{Counter as Counted, counter::COUNTERS};
use vip_lease::lateness::Lateness;

use super::Status;
use crate::dataplane::observe::counter_name;

type Labels = Vec<(&'static str, String)>;
type GaugeFamily = Family<Labels, Gauge>;
type CounterFamily = Family<Labels, Counter>;

const LATENESS: (&str, &str) = ("vip_lease_renew_lateness_seconds", "How late renewals began");
/// The state that `vip_state` reports of every VIP, as 0 or 1, so that a query
/// can ask whether any node is in it. Of the other states it reports only the
/// current one: with all of them there would be seven series for each VIP.
const TOLD_ALWAYS: &str = "active";

/// The labels that every metric has. The cluster is among them where there is
/// one, since many clusters have the same group names and private addresses.
#[derive(Clone, Debug)]
struct Teller {
    cluster: Option<String>,
    node: String,
}

impl Teller {
    fn of(status: &Status) -> Self {
        Self { cluster: status.cluster.clone(), node: status.node.clone() }
    }

    /// The labels of the node's own metrics.
    fn node(&self) -> Labels {
        self.with(None)
    }

    /// The labels of a group's metrics on the node.
    fn group(&self, group: &str) -> Labels {
        self.with(Some(group))
    }

    fn with(&self, group: Option<&str>) -> Labels {
        let cluster = self.cluster.iter().map(|cluster| ("cluster", cluster.clone()));
        let group = group.into_iter().map(|group| ("group", group.to_owned()));
        cluster.chain(group).chain([("node", self.node.clone())]).collect()
    }
}

/// The same labels and one more.
fn and(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut more = Vec::with_capacity(labels.len() + 1);
    more.extend_from_slice(labels);
    more.push((name, value.to_owned()));
    more
}

/// The metrics in the OpenMetrics text format.
///
/// # Errors
/// If formatting fails.
pub fn text(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let teller = Teller::of(status);
    let of_node = teller.node();
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
    if let Some(version) = &status.version {
        let build = gauge(&mut registry, "vip_build_info", "1, with the version of vip that tells this");
        build.get_or_create(&and(&of_node, "version", version)).set(1);
    }
    if status.has_data_plane() {
        let up = gauge(
            &mut registry,
            "vip_up",
            "1 if the data plane is loaded and on every interface it should be; not there on a witness or observer, which has none",
        );
        let attached = !status.interfaces.is_empty() && status.interfaces.iter().all(|i| i.mode.is_some());
        up.get_or_create(&of_node).set(i64::from(attached));
    }
    if let Some(quorate) = status.quorate {
        let family = gauge(&mut registry, "vip_quorate", "1 if this node hears a majority of the voters");
        family.get_or_create(&of_node).set(i64::from(quorate));
    }
    let mut flag = |name: &str, help: &str, is_so: bool| {
        gauge(&mut registry, name, help).get_or_create(&of_node).set(i64::from(is_so));
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
            status.nodes.iter().any(|known| known.name == status.node && known.standby),
        );
        flag(
            "vip_forced",
            "1 if this node holds a group by force, without a quorum",
            status.groups.iter().any(|group| group.forced),
        );
    }
    if let Some(generation) = status.generation {
        let family = gauge(&mut registry, "vip_generation", "Number of the membership");
        family.get_or_create(&of_node).set(generation.into());
    }
    count_groups(&mut registry, &teller, status);
    count_checks(&mut registry, &teller, status);
    for (name, value) in &status.agent {
        let family = counter(&mut registry, &format!("vip_{name}"), about_counted(name));
        family.get_or_create(&of_node).inc_by(*value);
    }
    let rejected =
        counter(&mut registry, "vip_heartbeats_rejected", "Datagrams dropped without an answer, by reason");
    for (reason, count) in &status.rejected {
        rejected.get_or_create(&and(&of_node, "reason", reason)).inc_by(*count);
    }
    if let Some(renewals) = &status.renewals {
        register_renewals(&mut registry, &teller, renewals);
    }
    if let Some(tally) = &status.tally {
        tally::register(&mut registry, &teller, tally);
    }
    let mut out = String::new();
    encode(&mut out, &registry)?;
    Ok(out)
}

/// The help text of the agent's counter `name`.
fn about_counted(name: &str) -> &'static str {
    match name {
        "heartbeats_sent" => "Datagrams that the agent sent to other nodes",
        "heartbeats_unsent" => "Datagrams that the agent could not send, or had no session to seal them for",
        "heartbeats_received" => "Authentic datagrams that the agent received",
        "heartbeats_dropped" => "Datagrams that the kernel dropped before the agent read them",
        _ => "Counted by the agent",
    }
}

/// The metrics of groups, their VIPs, and frames.
fn count_groups(registry: &mut Registry, teller: &Teller, status: &Status) {
    let (state, epoch) = (GaugeFamily::default(), GaugeFamily::default());
    let remaining = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    registry.register(
        "vip_state",
        "1 for the state that the VIP is in on this node; of the other states only active is there, as 0",
        state.clone(),
    );
    registry.register("vip_epoch", "The number of the grant", epoch.clone());
    registry.register("vip_lease_remaining_seconds", "What is left of this node's lease", remaining.clone());
    let [packets, replies, conflicts] = [(); 3].map(|()| CounterFamily::default());
    registry.register("vip_packets", "Frames by class, verdict and reason", packets.clone());
    registry.register("vip_arp_replies", "ARP requests for the VIP that were answered", replies.clone());
    registry.register(
        "vip_conflicts",
        "ARP claims of the VIP by others while this node held it",
        conflicts.clone(),
    );
    let counters: Vec<_> = COUNTERS.iter().map(|counter| (counter_name(*counter), *counter)).collect();
    for group in &status.groups {
        let of_group = teller.group(&group.name);
        if let Some(number) = group.epoch {
            epoch.get_or_create(&of_group).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        if let Some(ms) = group.lease_remaining_ms {
            remaining.get_or_create(&of_group).set(Duration::from_millis(ms).as_secs_f64());
        }
        for vip in &group.vips {
            let of_vip = and(&of_group, "vip", &vip.address);
            state.get_or_create(&and(&of_vip, "state", &group.state)).set(1);
            if group.state != TOLD_ALWAYS {
                state.get_or_create(&and(&of_vip, "state", TOLD_ALWAYS)).set(0);
            }
            count_frames(&packets, &of_vip, &vip.counters, &counters);
            let of = |name: &str| vip.counters.get(name).copied().unwrap_or(0);
            replies.get_or_create(&of_vip).inc_by(of("arp_request_answer_lease"));
            conflicts.get_or_create(&of_vip).inc_by(of("arp_claim_pass_conflict"));
        }
    }
    count_frames(&packets, &teller.node(), &status.counters, &counters);
}

/// A check without a verdict has no `vip_check_up` yet.
fn count_checks(registry: &mut Registry, teller: &Teller, status: &Status) {
    if status.groups.iter().all(|group| group.eligible.is_none()) {
        return;
    }
    let eligible = GaugeFamily::default();
    registry.register("vip_eligible", "1 if this node could take the group", eligible.clone());
    let silent = GaugeFamily::default();
    registry.register(
        "vip_held_but_silent",
        "1 if another node holds the group and nobody answers for a VIP of it on this node's segment",
        silent.clone(),
    );
    let unheard = GaugeFamily::default();
    registry.register(
        "vip_interface_silent",
        "1 if the peers on the segment hear this node's host there and not its data plane",
        unheard.clone(),
    );
    for interface in &status.interfaces {
        let labels = and(&teller.node(), "interface", &interface.name);
        unheard.get_or_create(&labels).set(i64::from(interface.heard == Some(false)));
    }
    let (up, took) = (GaugeFamily::default(), Family::<Labels, Gauge<f64, AtomicU64>>::default());
    registry.register("vip_check_up", "1 if the health check passes on this node", up.clone());
    registry.register("vip_check_duration_seconds", "How long its last run took", took.clone());
    for group in &status.groups {
        let of_group = teller.group(&group.name);
        eligible.get_or_create(&of_group).set(i64::from(group.eligible == Some(true)));
        silent.get_or_create(&of_group).set(i64::from(group.silent.is_some()));
        for check in &group.checks {
            let labels = and(&of_group, "check", &check.name);
            if let Some(ok) = check.ok {
                up.get_or_create(&labels).set(i64::from(ok));
            }
            if let Some(ms) = check.took_ms {
                took.get_or_create(&labels).set(ms / 1000.0);
            }
        }
    }
}

fn register_renewals(registry: &mut Registry, teller: &Teller, renewals: &Lateness) {
    histogram::register(registry, LATENESS, teller.node(), renewals.histogram());
    let late = CounterFamily::default();
    registry.register(
        "vip_lease_renew_late",
        "Renewals that began later than half of what would have cost the lease",
        late.clone(),
    );
    late.get_or_create(&teller.node()).inc_by(renewals.late);
}

fn count_frames(
    packets: &CounterFamily,
    of: &Labels,
    frames: &BTreeMap<String, u64>,
    counters: &[(String, Counted)],
) {
    for (name, counter) in counters {
        let Some(frames) = frames.get(name) else { continue };
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
    use crate::report::{GroupStatus, InterfaceStatus};

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
            "vip_pair{cluster=\"shop\",node=\"db-a\"} 1",
            "vip_paused{cluster=\"shop\",node=\"db-a\"} 0",
            "vip_generation{cluster=\"shop\",node=\"db-a\"} 3",
            "vip_heartbeats_rejected_total{cluster=\"shop\",node=\"db-a\",reason=\"bad_tag\"} 7",
            "vip_lease_renew_late_total{cluster=\"shop\",node=\"db-a\"} 1",
            "vip_lease_renew_lateness_seconds_bucket{le=\"0.00005\",cluster=\"shop\",node=\"db-a\"} 0",
            "vip_lease_renew_lateness_seconds_bucket{le=\"0.0001\",cluster=\"shop\",node=\"db-a\"} 1",
            "vip_lease_renew_lateness_seconds_bucket{le=\"+Inf\",cluster=\"shop\",node=\"db-a\"} 2",
            "vip_lease_renew_lateness_seconds_count{cluster=\"shop\",node=\"db-a\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }

    fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect()
    }

    #[test]
    fn who_has_no_data_plane_is_not_said_to_have_lost_it() {
        let of = |mode: &str, interfaces: &[Option<&str>]| -> Vec<String> {
            let interfaces = interfaces.iter().map(|mode| InterfaceStatus {
                name: "eth0".into(),
                mode: mode.map(str::to_owned),
                carrier: true,
                announces: true,
                heard: None,
            });
            let status = Status {
                node: "db-a".into(),
                mode: mode.into(),
                interfaces: interfaces.collect(),
                ..Status::default()
            };
            lines(&text(&status).expect("formatted"), "vip_up").iter().map(|l| (*l).to_owned()).collect()
        };
        let told = |up: u8| vec![format!("vip_up{{node=\"db-a\"}} {up}")];
        for mode in ["witness", "observer"] {
            assert_eq!(of(mode, &[]), Vec::<String>::new(), "{mode}");
        }
        for mode in ["cluster", "manual"] {
            assert_eq!(of(mode, &[]), told(0), "{mode}");
            assert_eq!(of(mode, &[Some("native"), None]), told(0), "{mode}");
            assert_eq!(of(mode, &[Some("native")]), told(1), "{mode}");
        }
    }

    #[test]
    fn a_vip_has_a_series_for_its_state_and_one_for_active() {
        let group = |name: &str, state: &str, vip: &str| -> GroupStatus {
            serde_json::from_value(serde_json::json!({
                "name": name, "state": state, "mode": "cluster", "holder": null, "epoch": 1,
                "lease_remaining_ms": null, "vips": [{ "address": vip, "counters": {} }],
            }))
            .expect("a group")
        };
        let status = Status {
            node: "db-a".into(),
            cluster: Some("shop".into()),
            version: Some("1.2.3".into()),
            groups: vec![group("db", "active", "10.0.1.12"), group("web", "fault", "10.0.1.13")],
            ..Status::default()
        };
        let text = text(&status).expect("formatted");
        let mut found = lines(&text, "vip_state");
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "vip_state{cluster=\"shop\",group=\"db\",node=\"db-a\",vip=\"10.0.1.12\",state=\"active\"} 1",
                "vip_state{cluster=\"shop\",group=\"web\",node=\"db-a\",vip=\"10.0.1.13\",state=\"active\"} 0",
                "vip_state{cluster=\"shop\",group=\"web\",node=\"db-a\",vip=\"10.0.1.13\",state=\"fault\"} 1",
            ]
        );
        assert_eq!(
            lines(&text, "vip_build_info"),
            ["vip_build_info{cluster=\"shop\",node=\"db-a\",version=\"1.2.3\"} 1"]
        );
    }

    #[test]
    fn every_metric_of_a_cluster_says_which() {
        let status = crate::reference::full();
        let text = text(&status).expect("formatted");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("cluster=\"shop\"") && line.contains("node=\"db-a\""), "{line}");
        }
    }
}
