//! The dashboard and the alerting rules against the metrics that there are:
//! names and labels, and that each alert has its section to read.

use std::collections::{BTreeMap, BTreeSet};

use super::full;
use crate::report::metrics;

const DASHBOARD: &str = include_str!("../../../packaging/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../../packaging/alerts.yaml");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
/// What Prometheus adds to every series that it reads.
const ADDED: [&str; 2] = ["instance", "job"];
/// Words that join many series into few: without a label of the cluster that
/// mixes what is called the same in two of them.
const JOINING: [&str; 5] = ["sum", "max", "min", "avg", "count"];

/// The labels of each series, by its name.
type Series = BTreeMap<String, BTreeSet<String>>;

fn series() -> Series {
    let text = metrics::text(&full()).expect("formatted");
    let mut series: Series = [("up".to_owned(), BTreeSet::new())].into();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').expect("a label");
        let labels = series.entry(name.to_owned()).or_default();
        labels.extend(rest.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
    }
    for labels in series.values_mut() {
        labels.extend(ADDED.map(str::to_owned));
    }
    series
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metrics that an expression names, each with what comes after it.
fn metrics_in<'a>(expr: &'a str, series: &Series) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        if word.starts_with("vip_") || series.contains_key(word) {
            found.push((word, after));
        }
        rest = after;
    }
    found
}

/// What is in the brackets that a text begins with.
fn inside(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(1..at).unwrap_or_default();
        }
    }
    panic!("brackets are not closed: {text}");
}

fn labels_of<'a>(metric: &str, series: &'a Series) -> Result<&'a BTreeSet<String>, String> {
    series.get(metric).ok_or_else(|| format!("there is no metric {metric}"))
}

/// What an expression gets wrong, and the labels of what it comes to.
fn judge(expr: &str, series: &Series) -> Result<BTreeSet<String>, String> {
    let used = metrics_in(expr, series);
    let Some((first, _)) = used.first() else { return Err(format!("no metric in {expr}")) };
    for (metric, after) in &used {
        let labels = labels_of(metric, series)?;
        let selected = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        for pair in selected.map_or("", |(inside, _)| inside).split("\",").filter(|pair| !pair.is_empty()) {
            let label = pair.split(['=', '!']).next().unwrap_or_default();
            if !labels.contains(label) {
                return Err(format!("{metric} has no label {label}"));
            }
        }
    }
    let mut outcome = labels_of(first, series)?.clone();
    for (place, (at, by)) in expr.match_indices(" by (").enumerate() {
        let list = inside(&expr[at + by.len() - 1..]);
        let joined: BTreeSet<_> = list.split(", ").map(str::to_owned).collect();
        if !joined.contains("cluster") {
            return Err(format!("{list} mixes clusters"));
        }
        let of = inside(expr[at + by.len() + list.len() + 1..].trim_start());
        for (metric, _) in metrics_in(of, series) {
            let labels = labels_of(metric, series)?;
            if let Some(label) = joined.iter().find(|label| !labels.contains(*label)) {
                return Err(format!("{metric} has no label {label} to be joined by"));
            }
        }
        if place == 0 {
            outcome = joined;
        }
    }
    for (at, _) in expr.match_indices('(') {
        let word = expr[..at].rsplit(|c| !is_word(c)).next().unwrap_or_default();
        if JOINING.contains(&word) {
            return Err(format!("{word} mixes clusters"));
        }
    }
    Ok(outcome)
}

/// The alerts: name, expression, summary.
fn alerts() -> Vec<(&'static str, &'static str, &'static str)> {
    let of = |key: &'static str| ALERTS.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let alerts: Vec<_> =
        of("- alert: ").zip(of("expr: ")).zip(of("summary: ")).map(|((n, e), s)| (n, e, s)).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn alerts_use_metrics_and_labels_that_there_are() {
    let series = series();
    for (name, expr, summary) in alerts() {
        let labels = judge(expr, &series).unwrap_or_else(|e| panic!("{name}: {e}"));
        for told in summary.split("$labels.").skip(1) {
            let label = told.split(|c| !is_word(c)).next().unwrap_or_default();
            assert!(labels.contains(label), "{name} tells {label}, which is not among {labels:?}");
        }
    }
}

#[test]
fn the_dashboard_uses_metrics_and_labels_that_there_are() {
    let series = series();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets: Vec<_> = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten().collect();
    assert!(targets.len() > 15);
    for target in targets {
        let expr = target["expr"].as_str().expect("an expression");
        let mut labels = judge(expr, &series).unwrap_or_else(|e| panic!("{expr}: {e}"));
        labels.remove("le");
        let legend = target["legendFormat"].as_str().expect("a legend");
        for told in legend.split("{{").skip(1) {
            let label = told.split("}}").next().unwrap_or_default();
            assert!(labels.contains(label), "{expr} has no label {label} for its legend");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let queries: Vec<_> = variables.iter().filter_map(|variable| variable["definition"].as_str()).collect();
    assert!(queries.len() >= 3, "{queries:?}");
    for query in queries {
        let (metric, label) = query
            .strip_prefix("label_values(")
            .and_then(|query| query.strip_suffix(')')?.rsplit_once(", "))
            .expect("a query for a label's values");
        judge(metric, &series).unwrap_or_else(|e| panic!("{query}: {e}"));
        let name = metric.split('{').next().unwrap_or_default();
        assert!(series[name].contains(label), "{name} has no label {label}");
    }
}

#[test]
fn what_is_wrong_in_an_expression_is_seen() {
    let series = series();
    let wrong = |expr: &str| judge(expr, &series).expect_err(expr);
    assert_eq!(wrong("vip_stat == 0"), "there is no metric vip_stat");
    assert_eq!(wrong("vip_transitions == 0"), "there is no metric vip_transitions");
    assert_eq!(wrong("vip_up{group=\"db\"} == 0"), "vip_up has no label group");
    assert_eq!(wrong("vip_up{node=\"a\",grup!=\"db\"} == 0"), "vip_up has no label grup");
    assert_eq!(wrong("max by (group) (vip_state) == 0"), "group mixes clusters");
    assert_eq!(wrong("max(vip_paused) == 1"), "max mixes clusters");
    let unknown = wrong("sum by (cluster, vip) (rate(vip_transitions_total[1m])) > 1");
    assert_eq!(unknown, "vip_transitions_total has no label vip to be joined by");
    let right = "sum by (cluster, group) (rate(vip_transitions_total{reason=\"elected\"}[1m])) > 1";
    assert_eq!(judge(right, &series), Ok(["cluster", "group"].map(str::to_owned).into()));
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
            "{title} asks nothing"
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another panel");
        }
    }
}

#[test]
fn every_alert_says_what_to_do() {
    for (name, ..) in alerts() {
        assert!(
            OPERATIONS.lines().any(|line| line == format!("### {name}")),
            "docs/operations.md has no section {name}"
        );
        let anchor = format!("runbook: docs/operations.md#{}", name.to_lowercase());
        assert!(ALERTS.contains(&anchor), "{name} names no section to read");
    }
    let (_, sections) = OPERATIONS.split_once("\n## Alerts\n").expect("a part about alerts");
    let sections: BTreeSet<_> = sections.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(sections, names, "a section for each alert, and no other");
}
