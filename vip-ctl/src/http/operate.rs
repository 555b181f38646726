//! Requests that change something: the same ones that `vip-ctl`'s verbs make.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Request as HttpRequest, State, rejection::PathRejection},
    http::{StatusCode, header},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{
    App,
    error::{ApiError, ErrorBody},
    read::name_of,
};
use crate::agent::control::{Request, Response};

/// The most bytes of a body.
pub(super) const BODY_LEN_MAX: usize = 16 * 1024;

/// A move to a node.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct To {
    /// The node that shall hold the group; the holder chooses if left out.
    to: Option<String>,
    /// Answer when the new holder serves, which its `pre_promote` may delay, and
    /// not as soon as the lease has moved. If that takes longer than 15 s, the
    /// answer is a `timeout`, and the move goes on.
    wait: bool,
}

/// A move to a node, with its risk.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ToByForce {
    /// The node that shall hold the group; the one that answers if left out.
    to: Option<String>,
    /// Also without a quorum, by the vote of the answering node alone: a node
    /// that it does not hear may go on holding, and then two answer for the VIPs.
    force: bool,
    /// Answer when the new holder serves, which its `pre_promote` may delay, and
    /// not as soon as the lease has moved.
    wait: bool,
}

/// When to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wait {
    /// Answer when the new holder serves, which its `pre_promote` may delay, and
    /// not as soon as the lease has moved.
    wait: bool,
}

/// Standby, with its risk.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ByForce {
    /// Release also groups that no other node can take: nobody answers then.
    force: bool,
    /// Answer when the groups are served elsewhere, which a `pre_promote` may
    /// delay, and not as soon as their leases have moved.
    wait: bool,
}

/// An empty body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Nothing {}

/// A group was moved.
#[derive(Serialize, ToSchema)]
pub(super) struct Moved {
    /// The group.
    group: String,
    /// Who holds it now; null for nobody.
    holder: Option<String>,
    /// The risk that it took: a failover by force, without a quorum.
    #[serde(skip_serializing_if = "Option::is_none")]
    risk: Option<String>,
}

/// A node was put on standby, or taken off.
#[derive(Serialize, ToSchema)]
pub(super) struct Standby {
    /// The node.
    node: String,
    /// Is it on standby?
    standby: bool,
}

/// The cluster was paused, or goes on.
#[derive(Serialize, ToSchema)]
pub(super) struct Paused {
    /// Is it paused?
    paused: bool,
}

/// A JSON object in the body; no body means an empty object.
#[derive(Debug)]
pub(super) struct Body<T>(T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: HttpRequest, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        DefaultBodyLimit::max(BODY_LEN_MAX).apply(&mut request);
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::too_large(BODY_LEN_MAX)
            } else {
                ApiError::bad_request(format!("the body can't be read: {}", e.body_text()))
            }
        })?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        let is_json = kind.as_ref().and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            let essence = kind.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("application/json")
        });
        if !is_json {
            return Err(ApiError::bad_request(
                "the body has to be JSON: send Content-Type: application/json",
            ));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| ApiError::bad_request(format!("the body is not what is expected here: {e}")))
    }
}

type Name = Result<Path<String>, PathRejection>;

/// Moves a group, as planned.
#[utoipa::path(
    post,
    path = "/api/v1/groups/{name}/switchover",
    params(
        ("name" = String, Path, description = "The group, or one of its VIPs"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    request_body = To,
    responses((status = 200, description = "It is done", body = Moved), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn switchover(
    State(app): State<Arc<App>>,
    name: Name,
    Body(To { to, wait }): Body<To>,
) -> Result<Json<Moved>, ApiError> {
    let group = Some(name_of(name)?);
    moved(&app, Request::Switchover { group, to, wait }).await
}

/// Gives the group to the node that answers.
#[utoipa::path(
    post,
    path = "/api/v1/groups/{name}/promote",
    params(
        ("name" = String, Path, description = "The group, or one of its VIPs"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    request_body = Option<Wait>,
    responses((status = 200, description = "It is done", body = Moved), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn promote(
    State(app): State<Arc<App>>,
    name: Name,
    Body(Wait { wait }): Body<Wait>,
) -> Result<Json<Moved>, ApiError> {
    let group = Some(name_of(name)?);
    moved(&app, Request::Promote { group, wait }).await
}

/// Takes the group from its holder, wherever that is.
#[utoipa::path(
    post,
    path = "/api/v1/groups/{name}/demote",
    params(
        ("name" = String, Path, description = "The group, or one of its VIPs"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    request_body = Option<Wait>,
    responses((status = 200, description = "It is done", body = Moved), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn demote(
    State(app): State<Arc<App>>,
    name: Name,
    Body(Wait { wait }): Body<Wait>,
) -> Result<Json<Moved>, ApiError> {
    let group = Some(name_of(name)?);
    moved(&app, Request::Demote { group, wait }).await
}

/// Gives the group to a node, whether or not the holder is there.
#[utoipa::path(
    post,
    path = "/api/v1/groups/{name}/failover",
    params(
        ("name" = String, Path, description = "The group, or one of its VIPs"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    request_body = ToByForce,
    responses((status = 200, description = "It is done", body = Moved), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn failover(
    State(app): State<Arc<App>>,
    name: Name,
    Body(ToByForce { to, force, wait }): Body<ToByForce>,
) -> Result<Json<Moved>, ApiError> {
    let group = Some(name_of(name)?);
    moved(&app, Request::Failover { group, to, force, wait }).await
}

/// Hands over what a node holds, and keeps it from taking more.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/standby",
    params(
        ("name" = String, Path, description = "The node"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    request_body = ByForce,
    responses((status = 200, description = "It is done", body = Standby), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn standby(
    State(app): State<Arc<App>>,
    name: Name,
    Body(ByForce { force, wait }): Body<ByForce>,
) -> Result<Json<Standby>, ApiError> {
    let node = Some(name_of(name)?);
    on_standby(&app, Request::Standby { node, on: true, force, wait }).await
}

/// Lets a node that was on standby take leases again.
#[utoipa::path(
    post,
    path = "/api/v1/nodes/{name}/unstandby",
    params(
        ("name" = String, Path, description = "The node"),
        ("x-vip-request" = String, Header, description = "1")
    ),
    responses((status = 200, description = "It is done", body = Standby), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn unstandby(
    State(app): State<Arc<App>>,
    name: Name,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Standby>, ApiError> {
    let node = Some(name_of(name)?);
    on_standby(&app, Request::Standby { node, on: false, force: false, wait: false }).await
}

/// Switches automatic moves off in the whole cluster; leases go on.
#[utoipa::path(
    post,
    path = "/api/v1/pause",
    params(("x-vip-request" = String, Header, description = "1")),
    responses((status = 200, description = "It is done", body = Paused), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Paused>, ApiError> {
    set_pause(&app, true).await
}

/// Switches automatic moves on again.
#[utoipa::path(
    post,
    path = "/api/v1/resume",
    params(("x-vip-request" = String, Header, description = "1")),
    responses((status = 200, description = "It is done", body = Paused), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Paused>, ApiError> {
    set_pause(&app, false).await
}

async fn moved(app: &App, request: Request) -> Result<Json<Moved>, ApiError> {
    let response = app.server.answer(request).await;
    let Response::Done { group, holder, risk } = response else { return Err(response.into()) };
    Ok(Json(Moved { group, holder, risk }))
}

async fn on_standby(app: &App, request: Request) -> Result<Json<Standby>, ApiError> {
    let response = app.server.answer(request).await;
    let Response::Standby { node, on } = response else { return Err(response.into()) };
    Ok(Json(Standby { node, standby: on }))
}

async fn set_pause(app: &App, on: bool) -> Result<Json<Paused>, ApiError> {
    let response = app.server.answer(Request::Pause { on }).await;
    let Response::Pause { on } = response else { return Err(response.into()) };
    Ok(Json(Paused { paused: on }))
}
