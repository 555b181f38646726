//! What a key does. Nothing happens to the cluster until a person confirms it
//! with `y`.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::state::{Action, Doing, Monitor};
use crate::agent::control::Request;

/// What the dashboard has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Nothing,
    /// The end.
    Quit,
    /// Send this request to the agent.
    Ask(Request),
}

impl Monitor {
    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Effect::Quit } else { Effect::Nothing };
        }
        match std::mem::take(&mut self.doing) {
            Doing::Watch => self.watch(key.code),
            Doing::Choose { group, targets, marked } => self.choose(key.code, group, targets, marked),
            Doing::Confirm(order) => self.confirm(key.code, order),
        }
    }

    fn watch(&mut self, key: KeyCode) -> Effect {
        // The person has read it by now.
        self.outcome = None;
        let groups = self.status.as_ref().map_or(0, |status| status.groups.len());
        if key == KeyCode::Char('q') {
            return Effect::Quit;
        } else if is_up(key) {
            self.marked = self.marked.saturating_sub(1);
        } else if is_down(key) {
            self.marked = (self.marked + 1).min(groups.saturating_sub(1));
        } else if key == KeyCode::Char('s') && self.may_ask() {
            if let Some(group) = self.group() {
                let (group, targets) = (group.name.clone(), self.targets(group));
                self.doing = Doing::Choose { group, targets, marked: 0 };
            }
        } else if key == KeyCode::Char('p')
            && self.may_ask()
            && let Some(status) = &self.status
        {
            self.doing = Doing::Confirm(Action::Pause { on: !status.paused });
        }
        Effect::Nothing
    }

    /// Is there an agent to ask, and nothing under way? Says so if not.
    fn may_ask(&mut self) -> bool {
        let why = if self.trouble.is_some() || self.status.is_none() {
            "no agent answers, so this key does nothing"
        } else if self.waiting.is_some() {
            "the last command has not ended yet"
        } else {
            return true;
        };
        self.outcome = Some((false, why.to_owned()));
        false
    }

    fn choose(&mut self, key: KeyCode, group: String, targets: Vec<Option<String>>, marked: usize) -> Effect {
        let last = targets.len().saturating_sub(1);
        if key == KeyCode::Esc || key == KeyCode::Char('q') || key == KeyCode::Char('n') {
            return Effect::Nothing;
        }
        if key == KeyCode::Enter {
            let to = targets.into_iter().nth(marked).flatten();
            self.doing = Doing::Confirm(Action::Switchover { group, to });
            return Effect::Nothing;
        }
        let marked = if is_up(key) {
            marked.saturating_sub(1)
        } else if is_down(key) {
            (marked + 1).min(last)
        } else {
            marked
        };
        self.doing = Doing::Choose { group, targets, marked };
        Effect::Nothing
    }

    fn confirm(&mut self, key: KeyCode, order: Action) -> Effect {
        if key == KeyCode::Esc || key == KeyCode::Char('n') || key == KeyCode::Char('q') {
            return Effect::Nothing;
        }
        if key != KeyCode::Char('y') {
            self.doing = Doing::Confirm(order);
            return Effect::Nothing;
        }
        let (waiting, request) = match order {
            Action::Switchover { group, to } => {
                (format!("moving {group}"), Request::Switchover { group: Some(group), to, wait: true })
            }
            Action::Pause { on: true } => ("pausing".to_owned(), Request::Pause { on: true }),
            Action::Pause { on: false } => ("resuming".to_owned(), Request::Pause { on: false }),
        };
        self.waiting = Some(waiting);
        Effect::Ask(request)
    }
}

fn is_up(key: KeyCode) -> bool {
    key == KeyCode::Up || key == KeyCode::Char('k')
}

fn is_down(key: KeyCode) -> bool {
    key == KeyCode::Down || key == KeyCode::Char('j')
}
