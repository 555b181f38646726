//! What the dashboard draws. Each part gets the lines that it needs if there are
//! enough, the most important part first; nothing depends on a fixed size.

use std::time::Instant;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap},
};

use super::{
    rates::Frames,
    state::{Action, Doing, Monitor},
};
use crate::report::{GroupStatus, NodeStatus, Status};

/// Below this many columns, the dashboard leaves out what it can.
const NARROW: u16 = 64;
/// Columns of a lease's bar.
const BAR: usize = 10;
/// Columns of a VIP's address at least.
const ADDRESS: usize = 22;
/// The characters of a sparkline, from low to high.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Colours, or none where `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    /// Are there colours?
    pub(super) colours: bool,
}

impl Theme {
    /// By the environment (<https://no-color.org>).
    pub(super) fn of_environment() -> Self {
        Self { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn doubtful(self) -> Style {
        self.coloured(Color::Yellow)
    }

    fn state(self, state: &str) -> Style {
        match state {
            "active" => self.good(),
            "fault" | "expired" => self.bad(),
            "init" | "paused" => self.doubtful(),
            _ => Style::new(),
        }
    }
}

const HEADING: Style = Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::UNDERLINED);
const INVERSE: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything as it is at `now`.
pub(super) fn draw(frame: &mut Frame<'_>, monitor: &Monitor, theme: Theme, now: Instant) {
    let area = frame.area();
    let troubles = troubles(monitor, theme);
    let trouble_lines = lines_of(&troubles, area.width).min(area.height / 2);
    let [title, trouble, rest, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(trouble_lines),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, title, monitor, theme);
    frame.render_widget(Paragraph::new(troubles).wrap(Wrap { trim: true }), trouble);
    frame.render_widget(Paragraph::new(keys_of(monitor)).style(INVERSE), keys);
    match &monitor.status {
        Some(status) => draw_parts(frame, rest, monitor, status, theme, now),
        None if monitor.trouble.is_none() => frame.render_widget(Paragraph::new("asking the agent"), rest),
        None => {}
    }
    draw_dialog(frame, area, monitor, theme);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, monitor: &Monitor, theme: Theme) {
    let mut spans = vec![Span::styled(" vip ", INVERSE), Span::raw(" ")];
    if let Some(status) = &monitor.status {
        spans.push(Span::styled(status.node.clone(), Style::new().add_modifier(Modifier::BOLD)));
        if let Some(cluster) = &status.cluster {
            spans.push(Span::raw(format!(" of {cluster}, ")));
        } else {
            spans.push(Span::raw(", "));
        }
        spans.push(match status.quorate {
            Some(true) => Span::styled("quorate", theme.good()),
            Some(false) => Span::styled("NO QUORUM", theme.bad()),
            None => Span::raw("no agent"),
        });
        if status.silent {
            spans.push(Span::styled(", no vote yet", theme.doubtful()));
        }
        if status.paused {
            spans.push(Span::styled(", PAUSED", theme.doubtful().add_modifier(Modifier::BOLD)));
        }
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

/// What a person must know first.
fn troubles(monitor: &Monitor, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    // First the result of the person's last action.
    if let Some(waiting) = &monitor.waiting {
        lines.push(Line::styled(format!("{waiting} ..."), theme.doubtful()));
    } else if let Some((is_good, outcome)) = &monitor.outcome {
        lines.push(Line::styled(outcome.clone(), if *is_good { theme.good() } else { theme.bad() }));
    }
    if let Some(trouble) = &monitor.trouble {
        lines.push(Line::styled(trouble.clone(), theme.bad()));
    }
    lines
}

/// How many lines of a terminal some lines take at most.
fn lines_of(lines: &[Line<'_>], width: u16) -> u16 {
    let width = usize::from(width.max(1));
    // Words that don't fit leave a gap at the end of a line; half a line more
    // makes up for that.
    let count: usize = lines.iter().map(|line| (line.width() + width / 6).div_ceil(width)).sum();
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn keys_of(monitor: &Monitor) -> String {
    match &monitor.doing {
        Doing::Watch => " q quit  s switchover  p pause  ↑↓ group".into(),
        Doing::Choose { .. } => " ↑↓ choose  Enter go on  Esc back".into(),
        Doing::Confirm(_) => " y yes  n no".into(),
    }
}

/// How many lines each part gets: first each gets its minimum, then what it wants
/// as long as there are any.
fn share<const N: usize>(lines: u16, wants: [u16; N], least: u16) -> [u16; N] {
    let mut left = lines;
    let mut given = [0; N];
    for limit in [least, u16::MAX] {
        for (given, want) in given.iter_mut().zip(wants) {
            let more = want.min(limit).saturating_sub(*given).min(left);
            *given += more;
            left -= more;
        }
    }
    given
}

fn draw_parts(
    frame: &mut Frame<'_>,
    area: Rect,
    monitor: &Monitor,
    status: &Status,
    theme: Theme,
    now: Instant,
) {
    let len = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    // A heading each, and an empty line after it.
    let with = |count: usize| if count == 0 { 0 } else { len(count).saturating_add(2) };
    let vips = monitor.group().map_or(0, |group| group.vips.len());
    let unable = status.groups.iter().filter_map(|group| {
        let why = group.why.as_ref()?;
        Some(format!("{}: this node can't take it: {why}", group.name))
    });
    let warnings = unable.chain(status.warnings.iter().cloned());
    let warnings: Vec<_> = warnings.map(|warning| Line::styled(warning, theme.doubtful())).collect();
    let warning_lines = usize::from(lines_of(&warnings, area.width));
    let wants = [
        with(status.groups.len()),
        with(vips),
        with(status.nodes.len()),
        with(warning_lines),
        with(monitor.events.len()),
    ];
    let [groups, vips, nodes, said, events] = share(area.height, wants, 3);
    let [groups, nodes, vips, said, events] = Layout::vertical([
        Constraint::Length(groups),
        Constraint::Length(nodes),
        Constraint::Length(vips),
        Constraint::Length(said),
        Constraint::Length(events),
    ])
    .areas(area);
    draw_groups(frame, groups, monitor, status, theme, now);
    draw_nodes(frame, nodes, &status.nodes, theme);
    draw_vips(frame, vips, monitor, theme);
    let [heading, text] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(said);
    frame.render_widget(Paragraph::new(Line::styled("warnings", HEADING)), heading);
    frame.render_widget(Paragraph::new(warnings).wrap(Wrap { trim: true }), text);
    let [heading, text] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(events);
    frame.render_widget(Paragraph::new(Line::styled("events (UTC)", HEADING)), heading);
    // The newest ones that fit.
    let skipped = monitor.events.len().saturating_sub(usize::from(text.height));
    let lines: Vec<_> = monitor.events.iter().skip(skipped).map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines), text);
}

fn draw_groups(
    frame: &mut Frame<'_>,
    area: Rect,
    monitor: &Monitor,
    status: &Status,
    theme: Theme,
    now: Instant,
) {
    let narrow = area.width < NARROW;
    // The heading, and the marked one always among those that fit.
    let fit = usize::from(area.height).saturating_sub(1).max(1);
    let first = (monitor.marked + 1).saturating_sub(fit);
    let rows = status.groups.iter().enumerate().skip(first).take(fit).map(|(place, group)| {
        let (left, bar) = lease_of(monitor, group, now);
        let mut cells = vec![
            Cell::from(group.name.clone()),
            Cell::from(group.state.clone()).style(theme.state(&group.state)),
            Cell::from(group.holder.clone().unwrap_or_else(|| "nobody known".into())),
            Cell::from(left),
        ];
        if !narrow {
            cells.push(Cell::from(bar));
            let epoch = group.epoch.map_or(String::new(), |epoch| epoch.to_string());
            cells.push(Cell::from(if group.forced { format!("{epoch} BY FORCE") } else { epoch }));
        }
        Row::new(cells).style(if place == monitor.marked { INVERSE } else { Style::new() })
    });
    let mut widths =
        vec![Constraint::Fill(3), Constraint::Length(8), Constraint::Fill(3), Constraint::Length(8)];
    let mut names = vec!["group", "here", "holder", "lease"];
    if !narrow {
        widths.extend([Constraint::Length(u16::try_from(BAR).unwrap_or(0)), Constraint::Fill(2)]);
        names.extend(["", "epoch"]);
    }
    frame.render_widget(Table::new(rows, widths).header(Row::new(names).style(HEADING)), area);
}

/// What is left of this node's lease, in words and as a bar.
fn lease_of(monitor: &Monitor, group: &GroupStatus, now: Instant) -> (String, String) {
    match monitor.lease(group, now) {
        Some((left, full)) => {
            let filled =
                usize::try_from(left.saturating_mul(BAR as u64).div_ceil(full)).unwrap_or(BAR).min(BAR);
            (format!("{left} ms"), format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled)))
        }
        None if group.mode == "manual" && group.state == "active" => ("no end".into(), String::new()),
        None => ("-".into(), String::new()),
    }
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, nodes: &[NodeStatus], theme: Theme) {
    let narrow = area.width < NARROW;
    let rows = nodes.iter().map(|node| {
        let mut cells = vec![Cell::from(node.name.clone())];
        if !narrow {
            cells.push(Cell::from(node.address.clone()));
        }
        cells.push(Cell::from(node.role.clone()));
        cells.push(match (node.heard, node.standby) {
            (false, _) => Cell::from("not heard").style(theme.bad()),
            (true, true) => Cell::from("standby").style(theme.doubtful()),
            (true, false) => Cell::from("heard").style(theme.good()),
        });
        Row::new(cells)
    });
    let mut widths = vec![Constraint::Fill(3), Constraint::Length(8), Constraint::Fill(2)];
    let mut names = vec!["node", "role", "state"];
    if !narrow {
        widths.insert(1, Constraint::Fill(3));
        names.insert(1, "address");
    }
    frame.render_widget(Table::new(rows, widths).header(Row::new(names).style(HEADING)), area);
}

fn draw_vips(frame: &mut Frame<'_>, area: Rect, monitor: &Monitor, theme: Theme) {
    let Some(group) = monitor.group() else { return };
    let narrow = area.width < NARROW;
    let vips: Vec<_> = group.vips.iter().map(|vip| (vip, vip.at_home())).collect();
    let widest = vips.iter().map(|(_, at_home)| at_home.len()).max().unwrap_or(0);
    // What is left of the width beside the words, for two plots.
    let words = widest.max(ADDRESS) + 20;
    let plot = if narrow { 0 } else { (usize::from(area.width).saturating_sub(words) / 2).min(60) };
    let rows = vips.iter().map(|(vip, at_home)| {
        let rate = monitor.rates.last(&vip.address);
        let words = |of: fn(&Frames) -> u64| rate.as_ref().map_or("-".to_owned(), |rate| short(of(rate)));
        let dropped = rate.is_some_and(|rate| rate.dropped > 0);
        let mut cells = vec![
            Cell::from(at_home.as_str()),
            Cell::from(Line::from(words(|rate| rate.passed)).right_aligned()),
            Cell::from(Line::from(words(|rate| rate.dropped)).right_aligned()).style(if dropped {
                theme.bad()
            } else {
                Style::new()
            }),
        ];
        if !narrow {
            let history = monitor.rates.history(&vip.address, plot);
            let passed: Vec<u64> = history.iter().map(|rate| rate.passed).collect();
            let dropped: Vec<u64> = history.iter().map(|rate| rate.dropped).collect();
            cells.insert(2, Cell::from(sparkline(&passed)).style(theme.good()));
            cells.push(Cell::from(sparkline(&dropped)).style(theme.bad()));
        }
        Row::new(cells)
    });
    let number = Constraint::Length(8);
    let mut widths = vec![Constraint::Fill(1), number, number];
    let mut names = vec![format!("VIPs of {}", group.name), "passed/s".into(), "drops/s".into()];
    if !narrow {
        let plot = Constraint::Length(u16::try_from(plot).unwrap_or(0));
        widths.insert(2, plot);
        widths.push(plot);
        names.insert(2, String::new());
        names.push(String::new());
    }
    let header = Row::new(names).style(HEADING);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

/// One character per value, the highest one full. Zero is a blank, so that small
/// values show.
fn sparkline(values: &[u64]) -> String {
    let highest = values.iter().copied().max().unwrap_or(0).max(1);
    let last = BARS.len() as u64 - 1;
    values
        .iter()
        .map(|value| match value {
            0 => ' ',
            _ => {
                let place = u128::from(*value) * u128::from(last) / u128::from(highest);
                BARS[usize::try_from(place).unwrap_or(0).min(BARS.len() - 1)]
            }
        })
        .collect()
}

/// A number in seven columns at most.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{} k", number / 1000),
        10_000_000..10_000_000_000 => format!("{} M", number / 1_000_000),
        _ => format!("{} G", number / 1_000_000_000),
    }
}

fn draw_dialog(frame: &mut Frame<'_>, area: Rect, monitor: &Monitor, theme: Theme) {
    let (title, lines) = match &monitor.doing {
        Doing::Watch => return,
        Doing::Choose { group, targets, marked } => {
            let lines = targets.iter().enumerate().map(|(place, target)| {
                let name = target.as_deref().unwrap_or("the holder chooses");
                if place == *marked {
                    Line::styled(format!("> {name}"), INVERSE)
                } else {
                    Line::raw(format!("  {name}"))
                }
            });
            (format!(" move {group} to "), lines.collect())
        }
        Doing::Confirm(order) => {
            (" sure? ".to_owned(), vec![Line::styled(question(order), theme.doubtful())])
        }
    };
    let width = area.width.min(56);
    let inner = width.saturating_sub(2);
    let height = lines_of(&lines, inner).max(1).saturating_add(2).min(area.height);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    // As many targets as fit, the marked one among them.
    let skipped = match &monitor.doing {
        Doing::Choose { marked, .. } => {
            let fit = usize::from(height.saturating_sub(2)).max(1);
            u16::try_from((marked + 1).saturating_sub(fit)).unwrap_or(0)
        }
        Doing::Watch | Doing::Confirm(_) => 0,
    };
    frame.render_widget(Clear, place);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((skipped, 0));
    frame.render_widget(text.block(Block::bordered().title(title)), place);
}

/// The question before an action, with its consequence.
fn question(order: &Action) -> String {
    match order {
        Action::Switchover { group, to: Some(to) } => {
            format!("Move {group} to {to} now? Its TCP connections are reset. (y/n)")
        }
        Action::Switchover { group, to: None } => {
            format!("Move {group} away from its holder now? Its TCP connections are reset. (y/n)")
        }
        Action::Pause { on: true } => {
            "Pause the whole cluster? Leases go on, and nothing moves by itself until it is resumed. (y/n)"
                .into()
        }
        Action::Pause { on: false } => "Resume? Groups move by themselves again. (y/n)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_gets_its_lines_first() {
        assert_eq!(share(20, [3, 3, 5, 3], 3), [3, 3, 5, 3]);
        assert_eq!(share(10, [3, 30, 5, 3], 3), [3, 3, 3, 1]);
        assert_eq!(share(14, [3, 30, 5, 3], 3), [3, 5, 3, 3]);
        assert_eq!(share(2, [3, 3, 5, 3], 3), [2, 0, 0, 0]);
    }

    #[test]
    fn a_sparkline_shows_little_beside_much() {
        assert_eq!(sparkline(&[0, 1, 500, 1000]), " ▁▄█");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(sparkline(&[u64::MAX, 1]), "█▁");
    }

    #[test]
    fn numbers_stay_short() {
        assert_eq!([0, 9_999, 12_345, 99_999_999].map(short), ["0", "9999", "12 k", "99 M"]);
        assert!(short(u64::MAX).len() <= 14);
    }
}
