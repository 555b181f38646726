//! Which of this node's interfaces each VIP belongs to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Range,
};

use toml::Spanned;
use vip_common::layout::GATEWAYS_MAX;

use crate::{
    config::{
        sections::{GroupDraft, HomeDraft, ThisNode},
        text::{report::Report, suggest::nearest},
    },
    home::{Home, is_on},
};

/// The homes of the VIPs that have one, by the names of this node's interfaces.
pub(super) fn resolve(
    node: &ThisNode,
    groups: &[GroupDraft],
    report: &mut Report<'_>,
) -> BTreeMap<IpAddr, Home> {
    // A node that never holds has none; that any other has none was reported.
    let Some(interfaces) = node.interfaces.as_ref().filter(|names| !names.is_empty()) else {
        return BTreeMap::new();
    };
    let silent = &node.written.silent;
    let announcing = interfaces.iter().filter(|name| !silent.contains(*name)).count();
    let (mut homes, mut told) = (BTreeMap::new(), BTreeSet::new());
    for group in groups {
        for (vip, draft) in &group.homes {
            let interface = match interface(node, interfaces, draft) {
                Ok(interface) => interface,
                Err((span, problem)) => {
                    // The VIPs of a group name the same one at the same place.
                    if told.insert(span.start) {
                        report.add(span, problem);
                    }
                    continue;
                }
            };
            if draft.prefix.is_some() && interface.is_none() && announcing > 1 {
                let message = format!(
                    "{vip} has a prefix, and this node has several interfaces: say which one its subnet is on, \
                     such as {{ address = \"{}\", interface = \"{}\" }}",
                    report.text(draft.span.clone()).trim_matches('"'),
                    interfaces[0]
                );
                report.add(draft.span.clone(), message);
            }
            homes.insert(*vip, Home { interface, prefix: draft.prefix });
        }
        let is_anywhere = |vip: &IpAddr| homes.get(vip).is_none_or(|home| home.interface.is_none());
        if announcing == 0
            && let Some(vip) = group.vips.iter().find(|vip| is_anywhere(vip.get_ref()))
        {
            let message = format!(
                "{} would be announced nowhere: take announce = false off one of this node's interfaces",
                vip.get_ref()
            );
            report.add(vip.span(), message);
        }
    }
    gateways(interfaces.iter().filter(|name| !silent.contains(*name)), groups, &homes, report);
    homes
}

/// Refuses more gateways on an interface than the programs look at.
fn gateways<'a>(
    announcing: impl Iterator<Item = &'a String>,
    groups: &[GroupDraft],
    homes: &BTreeMap<IpAddr, Home>,
    report: &mut Report<'_>,
) {
    for name in announcing {
        let is_here = |vip: &&Spanned<IpAddr>| is_on(homes, vip.get_ref(), name);
        let all = groups.iter().filter(|group| group.is_gateway).flat_map(|group| &group.vips);
        if let Some(vip) = all.filter(is_here).nth(GATEWAYS_MAX) {
            let message = format!(
                "{} is one gateway too many on {name}, which can have {GATEWAYS_MAX}: put it into a group without gateway = true",
                vip.get_ref()
            );
            return report.add(vip.span(), message);
        }
    }
}

/// The interface that a VIP names, by its name or label.
///
/// # Errors
/// Where it is written, and what is wrong with it.
fn interface(
    node: &ThisNode,
    interfaces: &[String],
    draft: &HomeDraft,
) -> Result<Option<String>, (Range<usize>, String)> {
    let Some(written) = &draft.interface else { return Ok(None) };
    let labels = &node.written.labels;
    let name = written.get_ref();
    let found = labels.get(name).or_else(|| interfaces.iter().find(|known| *known == name));
    let problem = match found {
        Some(found) if node.written.silent.contains(found) => {
            format!("nothing is announced on {found}: take announce = false off it under [node]")
        }
        Some(found) => return Ok(Some(found.clone())),
        // It may be the one that was refused.
        None if node.written.is_short => return Ok(None),
        None => {
            let known = || interfaces.iter().chain(labels.keys()).map(String::as_str);
            let mend = match nearest(name, known()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!(
                    "add it to interface under [node], or give one of {} there the label \"{name}\"",
                    interfaces.join(", ")
                ),
            };
            format!("\"{name}\" is no interface of this node: {mend}")
        }
    };
    Err((written.span(), problem))
}
