//! From TOML to values, each checked on its own: types, forms and ranges, and
//! what this version does not support yet. `cross_check` compares the values with
//! each other.

pub(super) mod api;
mod cluster;
pub mod garp;
pub(super) mod group;
pub(super) mod health;
pub mod hooks;
mod mac;
mod node;
pub mod self_test;

use std::{net::IpAddr, time::Duration};

use toml::{Spanned, de::DeTable};

use self::{
    api::ApiDraft,
    cluster::cluster_draft,
    group::group_draft,
    node::{Written, this_node},
};
pub(super) use self::{
    cluster::{ClusterDraft, NodeDraft},
    group::{GroupDraft, HomeDraft},
    node::{ThisName, ThisNode, interface_names},
};
use super::{
    DELAY_MAX, NAME_LEN_MAX,
    text::{
        report::Report,
        section::{Section, TOP, at},
    },
};

/// The values of the file, with the place of each; wrong ones were reported and
/// left out.
pub(super) struct Draft {
    pub(super) node: ThisNode,
    pub(super) cluster: Option<ClusterDraft>,
    pub(super) groups: Vec<GroupDraft>,
    pub(super) api: Option<ApiDraft>,
    pub(super) hooks: hooks::Draft,
}

/// Reads a file of `conf.d`, which has groups and nothing else.
pub(super) fn groups(table: &DeTable<'_>, report: &mut Report<'_>) -> Vec<GroupDraft> {
    let top = Section::more(table, report);
    let groups = top.sections("group", "[[group]]", report);
    groups.iter().map(|section| group_draft(section, report)).collect()
}

/// Reads the whole main file; `has_more`: other files have groups.
pub(super) fn document(table: &DeTable<'_>, has_more: bool, report: &mut Report<'_>) -> Draft {
    let top = Section::new(TOP, table, 0..0, report);
    let node =
        top.table("node", "[node]", report).map(|(table, span)| Section::new("[node]", table, span, report));
    let node = match node {
        Some(section) => this_node(&section, report),
        None => ThisNode {
            name: ThisName::Host,
            interfaces: None,
            written: Written::default(),
            startup_delay: Duration::ZERO,
            garp: garp::Garp::default(),
            self_test: self_test::SelfTest::default(),
            steer: true,
            span: 0..0,
        },
    };
    if top.lacks("cluster") {
        report.add(0..0, "there is no [cluster]: add it, with a [[cluster.node]] for each node");
    }
    let cluster = top
        .table("cluster", "[cluster]", report)
        .map(|(table, span)| Section::new("[cluster]", table, span, report));
    let cluster = cluster.map(|section| cluster_draft(&section, report));
    if top.lacks("group") && !has_more {
        report.add(0..0, "there is no [[group]]: add one, with its name and vips");
    }
    let groups = top.sections("group", "[[group]]", report);
    let groups = groups.iter().map(|section| group_draft(section, report)).collect();
    let api = top.table("api", "[api]", report);
    let api = api.map(|(table, span)| api::read(&Section::new("[api]", table, span, report), report));
    let hooks = hooks::read(&top, "[hooks]", report);
    Draft { node, cluster, groups, api, hooks }
}

/// A time to wait, at most [`DELAY_MAX`].
fn delay_of(section: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let text = section.string(key, "\"30s\"", report)?;
    match humantime::parse_duration(text.get_ref()) {
        Ok(delay) if delay <= DELAY_MAX => Some(delay),
        Ok(_) => {
            let max = humantime::format_duration(DELAY_MAX);
            report
                .add(text.span(), format!("{key} = \"{}\" is too long: write {max} at most", text.get_ref()));
            None
        }
        Err(_) => {
            let message = format!(
                "\"{}\" is no time: write a number and its unit, such as {key} = \"30s\"",
                text.get_ref()
            );
            report.add(text.span(), message);
            None
        }
    }
}

/// A node's or cluster's name.
fn name_of(what: &str, name: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    checked_name(what, name, NAME_LEN_MAX, "letters, digits", valid, report)
}

pub(super) fn checked_name(
    what: &str,
    name: &Spanned<&str>,
    len_max: usize,
    characters: &str,
    valid: impl Fn(char) -> bool,
    report: &mut Report<'_>,
) -> Option<Spanned<String>> {
    let text = *name.get_ref();
    let problem = if text.is_empty() {
        format!("the {what}'s name is empty: write one of {characters} and - _ .")
    } else if text.len() > len_max {
        format!("the {what}'s name \"{text}\" has {} bytes: shorten it to {len_max} at most", text.len())
    } else if let Some(wrong) = text.chars().find(|c| !valid(*c)) {
        format!("the {what}'s name \"{text}\" has a {wrong:?}: use only {characters} and - _ .")
    } else {
        return Some(at(name.span(), text.to_owned()));
    };
    report.add(name.span(), problem);
    None
}

pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}
