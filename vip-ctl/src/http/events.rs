//! The history of this node, and its events as they happen.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Message, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::{
    App,
    access::Peer,
    error::{ApiError, ErrorBody},
};
use crate::events::{Event, Subscription, history};

/// Records to return by default, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Bytes of records to return at most: the agent's memory is locked, and it keeps
/// what it once had.
const ANSWER_LEN_MAX: usize = 2 << 20;
/// How long the next client waits for a reading that is under way before it gets
/// a 503.
const READING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a stream without events sends a sign of life.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// The query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only this group, or the group of this VIP.
    group: Option<String>,
    /// At most this many of the history's latest records (default 100, at most
    /// 10,000), and at most 2 MiB of them.
    limit: Option<usize>,
}

impl Wanted {
    /// Parses a query, and replaces a VIP by its group's name.
    fn of(query: Result<Query<Self>, QueryRejection>, app: &App) -> Result<Self, ApiError> {
        let Query(wanted) = query.map_err(|e| ApiError::bad_request(e.body_text()))?;
        let group = wanted.group.map(|group| app.server.known_group(group)).transpose()?;
        Ok(Self { group, ..wanted })
    }

    fn matches(&self, event: &Event) -> bool {
        self.group.is_none() || event.group == self.group
    }
}

/// What moved on this node, when and why, oldest first, including earlier runs of
/// its agent. Each record is what `vip-ctl events -o json` prints. The agent
/// reads it for one client at a time: one that waits too long gets a 503.
#[utoipa::path(
    get,
    path = "/api/v1/history",
    params(Wanted),
    responses(
        (status = 200, description = "The records", body = Vec<serde_json::Value>),
        (status = "default", description = "An error", body = ErrorBody)
    )
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(query, &app)?;
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let reading = timeout(READING_TIMEOUT, Arc::clone(&app.history).acquire_owned()).await;
    // The semaphore is never closed.
    let Ok(Ok(reading)) = reading else {
        return Err(ApiError::occupied(
            "the history is being read for another client, or its disk hangs: ask again later",
        ));
    };
    let dir = app.server.state_dir().to_owned();
    let read = tokio::task::spawn_blocking(move || {
        // Held until the reading has ended, even if no client waits for it any more.
        let _reading = reading;
        history::latest(&dir, limit, ANSWER_LEN_MAX, |event| wanted.matches(event))
    });
    let records = read
        .await
        .map_err(|e| ApiError::failed(e.to_string()))?
        .map_err(|e| ApiError::failed(format!("the history can't be read: {e}")))?;
    // Each is the JSON of an event, as the agent has written it.
    let body = format!("[{}]", records.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The events that the agent keeps, and then new ones, as server-sent events:
/// `id` is the agent's run and the number in it, `event` the kind, `data` what
/// `vip-ctl events -o json` prints. After a break, `Last-Event-ID` skips events
/// that were seen; one of another run skips none.
/// Over TCP the stream ends when the tokens change: connect again with a valid
/// one.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    params(("group" = Option<String>, Query, description = "Only this group, or the group of this VIP")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = "default", description = "An error", body = ErrorBody)
    )
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(query, &app)?;
    let run = app.server.events().run();
    let seen = headers.get("last-event-id").and_then(|id| seen(id.to_str().ok()?, run)).unwrap_or(0);
    let (kept, coming) = app.server.events().recent_and_subscribe();
    let kept = kept.into_iter().filter(|event| event.seq > seen).collect();
    let messages = messages(kept, coming, wanted, run).take_until(async move {
        match peer.tokens {
            // Nobody will change them any more: the API ends.
            Some(mut tokens) => drop(tokens.changed().await),
            None => std::future::pending().await,
        }
    });
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

/// The number of the last event that the client saw, if that was in this run of
/// the agent: numbers begin anew with each.
fn seen(id: &str, run: u64) -> Option<u64> {
    let (of, seq) = id.split_once('-')?;
    (u64::from_str_radix(of, 16) == Ok(run)).then(|| seq.parse().ok())?
}

fn messages(
    kept: VecDeque<Arc<Event>>,
    coming: Subscription,
    wanted: Wanted,
    run: u64,
) -> impl Stream<Item = Result<Message, Infallible>> {
    stream::unfold((kept, coming, wanted), move |(mut kept, mut coming, wanted)| async move {
        loop {
            let event = match kept.pop_front() {
                Some(event) => event,
                None => coming.next().await?,
            };
            // A lagging follower is always told, even when it filters by group.
            if wanted.matches(&event) || event.seq == 0 {
                return Some((Ok(message(&event, run)), (kept, coming, wanted)));
            }
        }
    })
}

fn message(event: &Event, run: u64) -> Message {
    let message = Message::default().event(event.kind.label());
    // A report of lost events has no number of its own.
    let message = if event.seq == 0 { message } else { message.id(format!("{run:016x}-{}", event.seq)) };
    // An event has only strings and numbers, which JSON can always express.
    message.data(serde_json::to_string(event).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_in_its_own_run_only() {
        let run = 0x00c0_ffee_0000_0001;
        let id = |run: u64, seq: &str| format!("{run:016x}-{seq}");
        assert_eq!(seen(&id(run, "17"), run), Some(17));
        for other in
            [id(run + 1, "17"), id(run, ""), id(run, "many"), "17".into(), "-17".into(), String::new()]
        {
            assert_eq!(seen(&other, run), None, "{other}");
        }
    }
}
