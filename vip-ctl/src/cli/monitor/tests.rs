//! The dashboard on terminals of several sizes, and what keys do to it.

use std::time::{Duration, Instant, SystemTime};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::json;

use super::{
    keys::Effect,
    state::{Doing, Monitor, Seen},
    view::{Theme, draw},
};
use crate::{
    agent::control::Request,
    events::{Change, Event, Kind, Timestamp},
    report::{GroupStatus, NodeStatus, Status, VipStatus},
};

/// A group without VIPs that is in this state here, of which nothing else is known.
pub(super) fn group(name: &str, state: &str) -> GroupStatus {
    serde_json::from_value(json!({ "name": name, "state": state, "mode": "cluster", "vips": [] })).unwrap()
}

/// What an agent says when this many frames were passed and dropped.
fn status(passed: u64, dropped: u64) -> Status {
    let vip = |address: &str, passed: u64, dropped: u64| {
        let counters = [("ip_in_pass_lease", passed), ("ip_in_drop_no_lease", dropped)];
        let counters = counters.map(|(name, count)| (name.to_owned(), count)).into();
        VipStatus { address: address.into(), counters, ..VipStatus::default() }
    };
    let node = |name: &str, address: &str, role: &str| -> NodeStatus {
        let (heard, standby) = (name != "db-c", name == "db-d");
        let node =
            json!({ "name": name, "address": address, "role": role, "heard": heard, "standby": standby });
        serde_json::from_value(node).unwrap()
    };
    Status {
        node: "db-a".into(),
        cluster: Some("shop".into()),
        quorate: Some(true),
        mode: "cluster".into(),
        nodes: vec![
            node("db-a", "10.0.1.10:7077", "node"),
            node("db-b", "10.0.1.11:7077", "node"),
            node("db-c", "10.0.1.12:7077", "node"),
            node("db-d", "10.0.1.13:7077", "node"),
            node("tie", "10.0.2.5:7077", "witness"),
        ],
        groups: vec![
            GroupStatus {
                holder: Some("db-b".into()),
                epoch: Some(3),
                why: Some("check tcp: connection refused".into()),
                vips: vec![vip("10.0.1.20", 0, dropped)],
                ..group("cache", "standby")
            },
            GroupStatus {
                holder: Some("db-a".into()),
                epoch: Some(17),
                lease_remaining_ms: Some(160),
                vips: vec![vip("10.0.1.112", passed, 0), vip("10.0.1.113", passed / 3, dropped / 7)],
                ..group("db", "active")
            },
        ],
        warnings: vec!["no XDP program is on eth1 any more: its VIPs are not answered there".into()],
        ..Status::default()
    }
}

/// A move of a group at this second of a day.
fn moved(second: u64) -> Event {
    Event {
        seq: second,
        time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_802_000 + second)),
        node: "db-a".into(),
        group: Some("db".into()),
        message: format!("standby -> active, epoch {second}"),
        kind: Kind::Changed(Change::default()),
    }
}

/// A dashboard that has looked for some seconds.
fn watched(start: Instant) -> (Monitor, Instant) {
    let mut monitor = Monitor::default();
    let (mut now, mut passed) = (start, 0);
    for second in 0_u64..40 {
        now = start + Duration::from_secs(second);
        passed += 1_000 + (second % 9) * 700;
        monitor.see(Seen::Agent(status(passed, second.saturating_sub(30) * 50)), now);
    }
    (1..=30).for_each(|second| monitor.happened(&moved(second)));
    (monitor, now)
}

fn picture(monitor: &Monitor, (width, height): (u16, u16), now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, monitor, Theme { colours: true }, now)).unwrap();
    terminal.backend().to_string()
}

fn press(monitor: &mut Monitor, keys: &[KeyCode]) -> Effect {
    let mut effect = Effect::Nothing;
    for key in keys {
        assert_eq!(effect, Effect::Nothing);
        effect = monitor.key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    effect
}

const SIZES: [(u16, u16); 3] = [(80, 24), (40, 12), (200, 60)];

#[test]
fn all_is_seen_at_a_glance() {
    let (mut monitor, now) = watched(Instant::now());
    press(&mut monitor, &[KeyCode::Down]);
    for (width, height) in SIZES {
        // A quarter of a second later, a part of the lease has gone.
        let shown = picture(&monitor, (width, height), now + Duration::from_millis(60));
        insta::assert_snapshot!(format!("glance_{width}x{height}"), shown);
    }
}

#[test]
fn a_vip_is_shown_with_its_interface() {
    let (mut monitor, now) = watched(Instant::now());
    let mut homed = status(9, 9);
    let vip = &mut homed.groups[0].vips[0];
    (vip.interface, vip.prefix) = (Some("wan-uplink0".into()), Some(29));
    monitor.see(Seen::Agent(homed), now);
    for size in [(80, 24), (64, 24)] {
        let shown = picture(&monitor, size, now);
        assert!(shown.contains("10.0.1.20/29 on wan-uplink0 "), "{shown}");
    }
}

#[test]
fn a_switchover_is_chosen_and_confirmed() {
    let (mut monitor, now) = watched(Instant::now());
    let keys = [KeyCode::Down, KeyCode::Char('s')];
    assert_eq!(press(&mut monitor, &keys), Effect::Nothing);
    insta::assert_snapshot!("choose_80x24", picture(&monitor, (80, 24), now));
    // The dialog offers no node that is not heard, is on standby, or is a witness.
    let Doing::Choose { targets, .. } = &monitor.doing else { panic!("{:?}", monitor.doing) };
    assert_eq!(*targets, [None, Some("db-b".to_owned())]);
    assert_eq!(press(&mut monitor, &[KeyCode::Down, KeyCode::Down, KeyCode::Enter]), Effect::Nothing);
    insta::assert_snapshot!("confirm_40x12", picture(&monitor, (40, 12), now));
    assert_eq!(press(&mut monitor, &[KeyCode::Enter]), Effect::Nothing, "only y confirms");
    let asked = press(&mut monitor, &[KeyCode::Char('y')]);
    let expected = Request::Switchover { group: Some("db".into()), to: Some("db-b".into()), wait: true };
    assert_eq!(asked, Effect::Ask(expected));
    assert!(picture(&monitor, (80, 24), now).contains("moving db ..."));
    press(&mut monitor, &[KeyCode::Char('s')]);
    assert_eq!(monitor.doing, Doing::Watch, "one at a time");
    monitor.done(Err("group db: the target is not ready to take the group".into()));
    assert!(picture(&monitor, (80, 24), now).contains("the target is not ready"));
}

#[test]
fn what_is_not_confirmed_is_not_done() {
    let (mut monitor, _) = watched(Instant::now());
    for escape in [KeyCode::Esc, KeyCode::Char('n'), KeyCode::Char('q')] {
        for keys in [&[KeyCode::Char('s')][..], &[KeyCode::Char('s'), KeyCode::Enter], &[KeyCode::Char('p')]]
        {
            assert_eq!(press(&mut monitor, keys), Effect::Nothing);
            assert_ne!(monitor.doing, Doing::Watch);
            assert_eq!(press(&mut monitor, &[escape]), Effect::Nothing);
            assert_eq!(monitor.doing, Doing::Watch);
        }
    }
    assert_eq!(press(&mut monitor, &[KeyCode::Char('y')]), Effect::Nothing);
    assert_eq!(press(&mut monitor, &[KeyCode::Char('q')]), Effect::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut monitor, &[KeyCode::Char('p')]);
    assert_eq!(monitor.key(interrupt), Effect::Quit);
}

#[test]
fn a_pause_is_confirmed_and_taken_back() {
    let (mut monitor, now) = watched(Instant::now());
    let keys = [KeyCode::Char('p'), KeyCode::Char('y')];
    assert_eq!(press(&mut monitor, &keys), Effect::Ask(Request::Pause { on: true }));
    monitor.done(Ok("paused: nothing moves by itself".into()));
    monitor.see(Seen::Agent(Status { paused: true, ..status(0, 0) }), now);
    assert!(picture(&monitor, (80, 24), now).contains("PAUSED"));
    assert_eq!(press(&mut monitor, &keys), Effect::Ask(Request::Pause { on: false }));
}

#[test]
fn an_agent_that_does_not_answer_is_said_and_asked_nothing() {
    let (mut monitor, now) = watched(Instant::now());
    let why =
        || "the agent at /run/vip/agent.sock did not answer in time: it may be stopped or hung".to_owned();
    monitor.see(Seen::Nothing(why()), now);
    for keys in [KeyCode::Char('s'), KeyCode::Char('p')] {
        assert_eq!(press(&mut monitor, &[keys]), Effect::Nothing);
        assert_eq!(monitor.doing, Doing::Watch);
    }
    insta::assert_snapshot!("silent_80x24", picture(&monitor, (80, 24), now + Duration::from_secs(3)));
    monitor.see(
        Seen::Maps(Status { cluster: None, quorate: None, nodes: Vec::new(), ..status(9, 9) }, why()),
        now,
    );
    insta::assert_snapshot!("maps_40x12", picture(&monitor, (40, 12), now));
    let mut fresh = Monitor::default();
    assert!(picture(&fresh, (80, 24), now).contains("asking the agent"));
    fresh.see(Seen::Nothing(why()), now);
    assert!(picture(&fresh, (80, 24), now).contains("monitor tries again"));
}

#[test]
fn no_size_and_no_number_of_groups_is_too_much() {
    let (mut monitor, now) = watched(Instant::now());
    let many: Vec<_> = (0..300)
        .map(|number| GroupStatus { holder: Some("x".repeat(64)), ..group(&format!("g{number}"), "standby") })
        .collect();
    monitor.see(Seen::Agent(Status { groups: many, ..status(1, 1) }), now);
    press(&mut monitor, &[KeyCode::Down; 250]);
    let shown = picture(&monitor, (80, 24), now);
    assert!(shown.contains("g250"), "the marked one is seen:\n{shown}");
    for keys in [&[][..], &[KeyCode::Char('s')], &[KeyCode::Enter]] {
        press(&mut monitor, keys);
        for width in [1, 2, 3, 7, 20, 41, 42, 43, 63, 64, 65, 300] {
            for height in [1, 2, 3, 4, 5, 9, 24, 100] {
                picture(&monitor, (width, height), now);
            }
        }
    }
}

#[test]
fn no_colour_is_used_where_none_is_wanted() {
    let (monitor, now) = watched(Instant::now());
    for colours in [true, false] {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &monitor, Theme { colours }, now)).unwrap();
        let buffer = terminal.backend().buffer();
        let coloured = buffer.content().iter().any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(coloured, colours);
    }
}
