//! Checks the values against each other: names and addresses that must differ,
//! voters that must be able to form a majority, and which node this one is.

mod homes;
mod virtual_macs;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::Path,
    time::Duration,
};

use vip_common::layout::{GROUPS_MAX, VIPS_MAX};

use super::{
    Cluster, Config, Garp, Group, NODES_MAX, Node, PRIORITY_DEFAULT, SelfTest, VOTERS_MAX,
    sections::{ClusterDraft, Draft, GroupDraft, NodeDraft, ThisName, ThisNode, hooks},
    text::{report::Report, suggest::nearest},
};
use crate::engine::Role;

/// The configuration that `draft` makes; `None` if any mistake was reported.
pub(super) fn check(draft: Draft, path: &Path, host_name: &str, report: &mut Report<'_>) -> Option<Config> {
    let Draft { node, cluster, groups, api, hooks } = draft;
    let no_nodes: &[NodeDraft] = &[];
    let drafts = cluster.as_ref().map_or(no_nodes, |cluster| &cluster.nodes);
    if let Some(cluster) = &cluster {
        voters(cluster, report);
    }
    distinct_nodes(drafts, report);
    addresses_meet(drafts, report);
    ids(drafts, report);
    let node_name = this_name(&node, drafts, host_name, report);
    group_limits(&groups, report);
    distinct_groups(&groups, report);
    distinct_vips(&groups, drafts, report);
    for group in &groups {
        priorities(group, drafts, report);
    }
    let macs = virtual_macs::resolve(cluster.as_ref(), &groups, report);
    let homes = homes::resolve(&node, &groups, report);
    if !report.is_empty() {
        return None;
    }
    let api = api.and_then(|api| api.finish(path));
    let mut config = build(node_name?, node.interfaces.unwrap_or_default(), cluster?, (groups, hooks), path)?;
    for group in &mut config.groups {
        let of = |vip: &IpAddr| Some((*vip, homes.get(vip)?.clone()));
        group.homes = group.vips.iter().filter_map(of).collect();
        group.virtual_mac = macs.get(&group.name).copied();
    }
    let (modes, silent) = (node.written.modes, node.written.silent);
    Some(Config {
        startup_delay: node.startup_delay,
        garp: node.garp,
        self_test: node.self_test,
        steer: node.steer,
        modes,
        silent,
        api,
        ..config
    })
}

/// Builds the configuration from values that are all right.
fn build(
    node_name: String,
    interfaces: Vec<String>,
    cluster: ClusterDraft,
    (groups, hooks): (Vec<GroupDraft>, hooks::Draft),
    path: &Path,
) -> Option<Config> {
    let mut nodes = Vec::new();
    for node in cluster.nodes {
        let (name, address) = (node.name?.into_inner(), node.address?.into_inner());
        let mac = node.mac.map(toml::Spanned::into_inner);
        nodes.push((node.id.map(toml::Spanned::into_inner), name, address, (node.role, mac)));
    }
    nodes.sort_by(|(_, a, ..), (_, b, ..)| a.cmp(b));
    let by_place = (0..=u8::MAX).zip(nodes);
    let nodes: Vec<_> = by_place
        .map(|(place, (id, name, address, (role, mac)))| Node {
            id: id.unwrap_or(place),
            name,
            address,
            role,
            mac,
        })
        .collect();
    let me = nodes.iter().find(|node| node.name == node_name)?.id;
    let default: BTreeMap<String, u8> = nodes
        .iter()
        .filter(|node| node.can_hold())
        .map(|node| (node.name.clone(), PRIORITY_DEFAULT))
        .collect();
    let mut built = Vec::new();
    for group in groups {
        let mut vips: Vec<IpAddr> = group.vips.into_iter().map(toml::Spanned::into_inner).collect();
        vips.sort_unstable();
        let mut priorities = default.clone();
        priorities.extend(group.priorities.into_iter().map(|(node, priority)| (node.into_inner(), priority)));
        let GroupDraft { name, is_gateway, preempt, health, hooks: own, .. } = group;
        let hooks = own.over(&hooks);
        let homes = BTreeMap::new();
        let name = name?.into_inner();
        let virtual_mac = None;
        built.push(Group { name, vips, homes, is_gateway, virtual_mac, priorities, preempt, health, hooks });
    }
    built.sort_by(|a, b| a.name.cmp(&b.name));
    let key_file = path.parent().unwrap_or(Path::new("")).join(cluster.key_file?);
    let (pair, generation) = (cluster.pair.map(toml::Spanned::into_inner), cluster.generation);
    let cluster = Cluster { name: cluster.name?, key_file, lease: cluster.lease, pair, generation, nodes };
    Some(Config {
        node_name,
        me,
        startup_delay: Duration::ZERO,
        garp: Garp::default(),
        self_test: SelfTest::default(),
        steer: true,
        interfaces,
        modes: BTreeMap::new(),
        silent: BTreeSet::new(),
        cluster,
        groups: built,
        api: None,
    })
}

fn voters(cluster: &ClusterDraft, report: &mut Report<'_>) {
    let nodes = &cluster.nodes;
    let voters = nodes.iter().filter(|node| node.role.votes()).count();
    let holders = nodes.iter().filter(|node| node.role == Role::Node).count();
    let Some(last) = nodes.last() else { return };
    if holders == 0 {
        let message = "every node is a witness or an observer, so none can hold a VIP: \
                       remove witness = true or observer = true from one";
        report.add(cluster.span.clone(), message);
    }
    if let Some(pair) = &cluster.pair
        && (voters, holders) != (2, 2)
    {
        let message = format!(
            "pair is for two nodes without a witness, and this cluster has {voters} voters: remove it; \
             with three voters a majority decides, and no cut makes two holders"
        );
        report.add(pair.span(), message);
    }
    let message = if nodes.len() > NODES_MAX {
        format!("{} nodes are too many: keep {NODES_MAX} at most", nodes.len())
    } else if voters > VOTERS_MAX {
        format!("{voters} voters are too many: keep {VOTERS_MAX} at most, and let others observe")
    } else if cluster.pair.is_some() || cluster.generation > 1 {
        // A growing cluster passes through an even number of voters.
        return;
    } else if voters == 2 && holders == 2 {
        let names: Vec<_> =
            nodes.iter().filter_map(|node| Some(node.name.as_ref()?.get_ref().as_str())).collect();
        format!(
            "two nodes ({}) without a witness can't tell a dead peer from a cut link: \
             add a third [[cluster.node]] with witness = true, or choose pair = \"take\" or \"hold\" under [cluster]",
            names.join(", ")
        )
    } else if voters > 0 && voters.is_multiple_of(2) {
        let fewer = voters - 1;
        format!("{voters} voters survive no more failures than {fewer}: add one, or remove one")
    } else {
        return;
    };
    report.add(last.span.clone(), message);
}

/// Reports addresses at which nodes can't reach each other: no other host reaches
/// a loopback address, and an agent's one socket has one address family.
fn addresses_meet(nodes: &[NodeDraft], report: &mut Report<'_>) {
    let addresses: Vec<_> = nodes.iter().filter_map(|node| node.address.as_ref()).collect();
    let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    if !addresses.iter().all(|address| is_loopback(address.get_ref())) {
        for address in addresses.iter().filter(|address| is_loopback(address.get_ref())) {
            let message = format!(
                "the address {} is a loopback address, which no other host can reach: \
                 write the one that the other nodes reach this one by",
                address.get_ref()
            );
            report.add(address.span(), message);
        }
    }
    let Some(first) = addresses.first() else { return };
    let family = |address: &SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let own = family(first.get_ref());
    for other in addresses.iter().filter(|address| family(address.get_ref()) != own) {
        let place = report.whereabouts(&first.span(), &other.span());
        let message = format!(
            "the address {} is {} and that of another node, {} ({place}), is {own}, so that the two can't reach \
             each other: give all nodes addresses of one kind",
            other.get_ref(),
            family(other.get_ref()),
            first.get_ref()
        );
        report.add(other.span(), message);
    }
}

/// Either all nodes have an id or none has, and no two have the same.
fn ids(nodes: &[NodeDraft], report: &mut Report<'_>) {
    let mut first: BTreeMap<u8, Range<usize>> = BTreeMap::new();
    for id in nodes.iter().filter_map(|node| node.id.as_ref()) {
        let before = first.get(id.get_ref()).map(|span| report.whereabouts(span, &id.span()));
        match before {
            Some(place) => {
                let message = format!(
                    "another node has the id {} already ({place}): give each node its own",
                    id.get_ref()
                );
                report.add(id.span(), message);
            }
            None => {
                first.insert(*id.get_ref(), id.span());
            }
        }
    }
    if let (false, Some(without)) = (first.is_empty(), nodes.iter().find(|node| node.id.is_none())) {
        report.add(
            without.span.clone(),
            "other nodes have an id and this one has none: give all of them one, as `vip-ctl member` does, or none",
        );
    }
}

fn distinct_nodes(nodes: &[NodeDraft], report: &mut Report<'_>) {
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut addresses: BTreeMap<SocketAddr, Range<usize>> = BTreeMap::new();
    let mut macs: BTreeMap<[u8; 6], Range<usize>> = BTreeMap::new();
    for node in nodes {
        if let Some(mac) = &node.mac {
            if let Some(first) = macs.get(mac.get_ref()) {
                let place = report.whereabouts(first, &mac.span());
                let text = report.text(mac.span()).to_owned();
                let message = format!(
                    "another node has the hardware address {text} already ({place}): give each node its own"
                );
                report.add(mac.span(), message);
            } else {
                macs.insert(*mac.get_ref(), mac.span());
            }
        }
        if let Some(name) = &node.name {
            if let Some(first) = names.get(name.get_ref().as_str()) {
                let place = report.whereabouts(first, &name.span());
                let message = format!(
                    "there is a node \"{}\" already ({place}): give this one another name",
                    name.get_ref()
                );
                report.add(name.span(), message);
            } else {
                names.insert(name.get_ref(), name.span());
            }
        }
        if let Some(address) = &node.address {
            if let Some(first) = addresses.get(address.get_ref()) {
                let place = report.whereabouts(first, &address.span());
                let message = format!(
                    "another node has the address {} already ({place}): give each node its own",
                    address.get_ref()
                );
                report.add(address.span(), message);
            } else {
                addresses.insert(*address.get_ref(), address.span());
            }
        }
    }
}

/// The name of the node that this configuration is for, if there is such a node
/// and it has everything that it needs.
fn this_name(
    node: &ThisNode,
    nodes: &[NodeDraft],
    host_name: &str,
    report: &mut Report<'_>,
) -> Option<String> {
    let names: Option<Vec<&str>> =
        nodes.iter().map(|node| node.name.as_ref().map(|name| name.get_ref().as_str())).collect();
    // Without the other names there is nothing to compare this one with.
    let names = names.filter(|names| !names.is_empty())?;
    let (name, what, span) = match &node.name {
        ThisName::Wrong => return None,
        ThisName::Given(name) => (name.get_ref().as_str(), "this node's name", name.span()),
        ThisName::Host => (host_name, "this host's name", node.span.clone()),
    };
    let Some(own) = nodes.iter().find(|node| node.name.as_ref().is_some_and(|own| own.get_ref() == name))
    else {
        let mend = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean name = \"{meant}\"?"),
            None => format!("under [node], set name to one of {}", names.join(", ")),
        };
        report.add(span, format!("{what}, \"{name}\", is none of the cluster's nodes: {mend}"));
        return None;
    };
    if node.interfaces.is_none() && own.role == Role::Node {
        let message =
            format!("\"{name}\" has no interface to answer on: under [node], add interface = \"eth0\"");
        report.add(node.span.clone(), message);
    }
    Some(name.to_owned())
}

fn group_limits(groups: &[GroupDraft], report: &mut Report<'_>) {
    let groups_max = usize::try_from(GROUPS_MAX).unwrap_or(usize::MAX);
    if let Some(first_over) = groups.get(groups_max) {
        let message = format!("{} groups are too many: keep {GROUPS_MAX} at most", groups.len());
        report.add(first_over.span.clone(), message);
    }
    // One slot belongs to no VIP.
    let vips_max = usize::try_from(VIPS_MAX - 1).unwrap_or(usize::MAX);
    let total: usize = groups.iter().map(|group| group.vips.len()).sum();
    if let Some(last) = groups.last().filter(|_| total > vips_max) {
        report.add(last.span.clone(), format!("{total} VIPs are too many: keep {vips_max} at most"));
    }
}

fn distinct_groups(groups: &[GroupDraft], report: &mut Report<'_>) {
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    for name in groups.iter().filter_map(|group| group.name.as_ref()) {
        if let Some(first) = names.get(name.get_ref().as_str()) {
            let place = report.whereabouts(first, &name.span());
            let message = format!(
                "there is a group \"{}\" already ({place}): give this one another name, or join the two",
                name.get_ref()
            );
            report.add(name.span(), message);
        } else {
            names.insert(name.get_ref(), name.span());
        }
    }
}

fn distinct_vips(groups: &[GroupDraft], nodes: &[NodeDraft], report: &mut Report<'_>) {
    let owners: BTreeMap<IpAddr, &NodeDraft> =
        nodes.iter().filter_map(|node| Some((node.address.as_ref()?.get_ref().ip(), node))).collect();
    let mut first_places: BTreeMap<IpAddr, (usize, Range<usize>)> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        for vip in &group.vips {
            let address = *vip.get_ref();
            if let Some(owner) = owners.get(&address) {
                let whose = owner.name.as_ref().map_or("a node", |name| name.get_ref());
                let place = owner.address.as_ref().map(toml::Spanned::span).unwrap_or_default();
                let place = report.whereabouts(&place, &vip.span());
                let message = format!(
                    "the VIP {address} is the address of {whose} ({place}), which can't move: write another"
                );
                report.add(vip.span(), message);
            }
            let Some((first_index, first)) = first_places.get(&address) else {
                first_places.insert(address, (index, vip.span()));
                continue;
            };
            let place = report.whereabouts(first, &vip.span());
            let message = if *first_index == index {
                format!("the VIP {address} is in this group already ({place}): remove one of the two")
            } else {
                let name = groups[*first_index].name.as_ref();
                let group =
                    name.map_or("another group".to_owned(), |name| format!("group \"{}\"", name.get_ref()));
                format!("the VIP {address} is in {group} already ({place}): remove it from one of them")
            };
            report.add(vip.span(), message);
        }
    }
}

fn priorities(group: &GroupDraft, nodes: &[NodeDraft], report: &mut Report<'_>) {
    let names: Option<Vec<&str>> =
        nodes.iter().map(|node| node.name.as_ref().map(|name| name.get_ref().as_str())).collect();
    let Some(names) = names.filter(|names| !names.is_empty()) else { return };
    for (name, _) in &group.priorities {
        let typed = name.get_ref().as_str();
        let node = nodes.iter().find(|node| node.name.as_ref().is_some_and(|name| name.get_ref() == typed));
        let message = match node {
            Some(node) if node.role != Role::Node => {
                let what = if node.role == Role::Witness { "a witness" } else { "an observer" };
                format!("\"{typed}\" is {what} and never holds a VIP: remove its priority")
            }
            Some(_) => continue,
            None => match nearest(typed, names.iter().copied()) {
                Some(meant) => format!("there is no node \"{typed}\": did you mean \"{meant}\"?"),
                None => format!("there is no node \"{typed}\": write one of {}", names.join(", ")),
            },
        };
        report.add(name.span(), message);
    }
}
