//! What happened: the history of this node, and its events as they come.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event as Message, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    error::{ApiError, ErrorBody},
    guard::Peer,
};
use crate::{
    event::{Event, Subscription},
    history,
};

/// Records that are given where nothing else is asked for, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// How often a stream without news says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only this group, or the group of this VIP.
    group: Option<String>,
    /// The history's latest records, so many at most (100; 10,000 at most).
    limit: Option<usize>,
}

impl Wanted {
    /// What a query says, with the group under its name.
    fn of(query: Result<Query<Self>, QueryRejection>, app: &App) -> Result<Self, ApiError> {
        let Query(wanted) = query.map_err(|e| ApiError::bad_request(e.body_text()))?;
        let group = wanted.group.map(|group| app.server.known_group(group)).transpose()?;
        Ok(Self { group, ..wanted })
    }

    fn matches(&self, event: &Event) -> bool {
        self.group.is_none() || event.group == self.group
    }
}

/// What moved on this node, when and why, oldest first; also that of earlier
/// runs of its agent. Each record is what `vip-ctl events -o json` prints.
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
    let dir = app.server.state_dir().to_owned();
    // Some megabytes on a disk that may be slow.
    let read = tokio::task::spawn_blocking(move || history::read(&dir)).await;
    let read = read.map_err(|e| ApiError::failed(e.to_string()))?;
    let mut records = read.map_err(|e| ApiError::failed(format!("the history can't be read: {e}")))?;
    records.retain(|event| wanted.matches(event));
    records.drain(..records.len().saturating_sub(limit));
    Ok(Json(records).into_response())
}

/// The events that the agent keeps, and then those that come, as server-sent
/// events: `id` is the number, `event` the kind, `data` what `vip-ctl events
/// -o json` prints. After a break, `Last-Event-ID` leaves out what was seen.
/// Over TCP the stream ends when the tokens change: come back with one that counts.
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
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let (kept, coming) = app.server.events().recent_and_subscribe();
    // Numbers begin anew with each run of the agent: one that is not reached
    // yet is of an earlier one, and nothing of this one was seen.
    let last = kept.last().map_or(0, |event| event.seq);
    let seen = seen.filter(|seen| *seen <= last).unwrap_or(0);
    let kept = kept.into_iter().filter(|event| event.seq > seen).collect();
    let messages = messages(kept, coming, wanted).take_until(async move {
        match peer.tokens {
            // Nobody will change them any more: the API ends.
            Some(mut tokens) => drop(tokens.changed().await),
            None => std::future::pending().await,
        }
    });
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

fn messages(
    kept: VecDeque<Arc<Event>>,
    coming: Subscription,
    wanted: Wanted,
) -> impl Stream<Item = Result<Message, Infallible>> {
    stream::unfold((kept, coming, wanted), |(mut kept, mut coming, wanted)| async move {
        loop {
            let event = match kept.pop_front() {
                Some(event) => event,
                None => coming.next().await?,
            };
            // Who has lost some is told, whatever they were about.
            if wanted.matches(&event) || event.seq == 0 {
                return Some((Ok(message(&event)), (kept, coming, wanted)));
            }
        }
    })
}

fn message(event: &Event) -> Message {
    let message = Message::default().event(event.kind.label());
    // What was dropped has no number of its own.
    let message = if event.seq == 0 { message } else { message.id(event.seq.to_string()) };
    // An event is made of strings and numbers only, which JSON has a form for.
    message.data(serde_json::to_string(event).unwrap_or_default())
}
