//! Numbers for everything that was seen before: nodes, messages, and what an
//! event did to a node. Worlds consist of numbers, so that they are small and
//! quick to compare; the engine runs once for each node and event.
//!
//! Numbers stand for things that are equal in every field, not for hashes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, RwLock},
};

use vip_common::Lease;

use super::{
    local::{Envelope, Event, Fault, Local, Outcome},
    scope::{Order, Scope},
};

/// Number of a [`Local`].
pub(super) type LocalId = u32;
/// Number of an [`Envelope`].
pub type MessageId = u32;

/// Things and their numbers.
struct Numbered<T> {
    numbers: HashMap<Arc<T>, u32>,
    things: Vec<Arc<T>>,
}

impl<T: Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }

    fn number(&mut self, thing: T) -> u32 {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        let number = u32::try_from(self.things.len()).unwrap_or(u32::MAX);
        assert!(number < u32::MAX, "more things than numbers");
        let thing = Arc::new(thing);
        self.numbers.insert(Arc::clone(&thing), number);
        self.things.push(thing);
        number
    }

    fn get(&self, number: u32) -> Arc<T> {
        Arc::clone(&self.things[number as usize])
    }
}

/// What an event on a node came to, by numbers.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub next: LocalId,
    pub sent: Box<[MessageId]>,
    pub stored: bool,
    /// Does a sent message have a ballot that the node had not used before?
    pub new_ballot: bool,
    /// Is it a candidate's?
    pub stands: bool,
    pub fault: Option<Fault>,
    pub stopped_before: Option<(LocalId, Box<[MessageId]>)>,
}

/// What a node does, or suffers, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    /// Its process looks at the clock.
    Wake,
    /// It is given an order.
    Order(Order),
    /// A new process starts.
    Restart,
    /// A new process starts, in the next generation.
    Step,
    /// Its process, stopped before a map write, goes on.
    Continue,
}

/// What happens to a node, small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKey {
    /// A message arrives.
    Deliver(MessageId),
    /// Something else.
    Own(Own),
}

type Key = (LocalId, u8, EventKey);

/// All that has been seen.
pub(super) struct Table {
    locals: RwLock<Numbered<Local>>,
    messages: RwLock<Numbered<Envelope>>,
    steps: Vec<Mutex<HashMap<Key, Arc<Step>>>>,
}

/// A thread that panicked ends the exploration before anybody gets here.
const UNPOISONED: &str = "no thread has panicked";

const SHARDS: usize = 64;

impl Default for Table {
    fn default() -> Self {
        Self {
            locals: RwLock::new(Numbered::new()),
            messages: RwLock::new(Numbered::new()),
            steps: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
        }
    }
}

impl Table {
    pub fn local(&self, number: LocalId) -> Arc<Local> {
        self.locals.read().expect(UNPOISONED).get(number)
    }

    pub fn message(&self, number: MessageId) -> Arc<Envelope> {
        self.messages.read().expect(UNPOISONED).get(number)
    }

    pub fn add_local(&self, local: Local) -> LocalId {
        self.locals.write().expect(UNPOISONED).number(local)
    }

    fn add_messages(&self, sent: Vec<Envelope>) -> Box<[MessageId]> {
        if sent.is_empty() {
            return Box::default();
        }
        let mut messages = self.messages.write().expect(UNPOISONED);
        sent.into_iter().map(|envelope| messages.number(envelope)).collect()
    }

    /// What `event` does to `node` at `tick`.
    pub fn step(&self, scope: &Scope, node: usize, local: LocalId, event: EventKey, tick: u8) -> Arc<Step> {
        let key = (local, tick, event);
        let shard = &self.steps[local as usize % SHARDS];
        if let Some(step) = shard.lock().expect(UNPOISONED).get(&key) {
            return Arc::clone(step);
        }
        let event = match event {
            EventKey::Deliver(message) => {
                let envelope = self.message(message);
                Event::Deliver { from: envelope.from, about: envelope.about }
            }
            EventKey::Own(Own::Wake) => Event::Wake,
            EventKey::Own(Own::Order(order)) => Event::Order(order),
            EventKey::Own(Own::Restart) => Event::Restart,
            EventKey::Own(Own::Step) => Event::Step,
            EventKey::Own(Own::Continue) => Event::Continue,
        };
        let before = self.local(local);
        let now = scope.clock(node, tick);
        let Outcome { next, sent, stored, fault, stopped_before } = before.step(scope, node, &event, now);
        let new_ballot = next.latest.is_some() && next.latest != before.latest;
        let stands = new_ballot && next.map == Lease::NONE;
        let step = Arc::new(Step {
            next: self.add_local(next),
            sent: self.add_messages(sent),
            stored,
            new_ballot,
            stands,
            fault,
            stopped_before: stopped_before
                .map(|(local, sent)| (self.add_local(local), self.add_messages(sent))),
        });
        shard.lock().expect(UNPOISONED).insert(key, Arc::clone(&step));
        step
    }

    /// How often an engine ran.
    pub fn runs(&self) -> usize {
        self.steps.iter().map(|shard| shard.lock().expect(UNPOISONED).len()).sum()
    }
}
