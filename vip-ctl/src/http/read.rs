//! Requests that only read: the status and parts of it, metrics, and whether the
//! agent is well.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    error::{ApiError, ErrorBody},
};
use crate::{
    lookup,
    report::{GroupStatus, NodeStatus, Status, metrics as prometheus},
};

/// How long a healthy lease loop takes at most to answer.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// The media type of Prometheus's text format since it became a standard.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Is the agent well?
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// True if it is.
    ok: bool,
    /// Why not, a sentence each.
    reasons: Vec<String>,
}

impl Health {
    fn response(reasons: Vec<String>) -> Response {
        let ok = reasons.is_empty();
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(Self { ok, reasons })).into_response()
    }
}

/// The node's view of itself and of the cluster: what `vip-ctl status -o json` prints.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    responses((status = 200, description = "The requested data", body = Status), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn status(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let status = app.status().await?;
    Ok(Json(&*status).into_response())
}

/// The groups.
#[utoipa::path(
    get,
    path = "/api/v1/groups",
    responses((status = 200, description = "The requested data", body = Vec<GroupStatus>), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn groups(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let status = app.status().await?;
    Ok(Json(&status.groups).into_response())
}

/// One group, by its name or a VIP of it.
#[utoipa::path(
    get,
    path = "/api/v1/groups/{name}",
    params(("name" = String, Path, description = "The group, or one of its VIPs")),
    responses(
        (status = 200, description = "The requested data", body = GroupStatus),
        (status = 404, description = "There is none of this name", body = ErrorBody),
        (status = "default", description = "An error", body = ErrorBody)
    )
)]
pub(super) async fn group(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let name = name_of(name)?;
    let status = app.status().await?;
    let place = lookup::group(Some(&name), &status.groups).map_err(|miss| ApiError::no_such(miss.message))?;
    Ok(Json(&status.groups[place]).into_response())
}

/// The nodes of the cluster.
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    responses((status = 200, description = "The requested data", body = Vec<NodeStatus>), (status = "default", description = "An error", body = ErrorBody))
)]
pub(super) async fn nodes(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let status = app.status().await?;
    Ok(Json(&status.nodes).into_response())
}

/// The metrics, in Prometheus's text format.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "The requested data", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "An error", body = ErrorBody)
    )
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let status = app.status().await?;
    // With ten thousands of VIPs this takes long, and others ask meanwhile.
    let text = tokio::task::spawn_blocking(move || prometheus::text(&status)).await;
    let text = text
        .map_err(|e| ApiError::failed(e.to_string()))?
        .map_err(|e| ApiError::failed(format!("could not write the metrics: {e}")))?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// Does the lease loop answer? Asks for no token.
#[utoipa::path(
    get,
    path = "/healthz",
    security(()),
    responses((status = 200, description = "It is well", body = Health), (status = 503, description = "It is not, and why", body = Health))
)]
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Response {
    Health::response(unwell(&app).await.into_iter().collect())
}

/// Could this node serve: is the data plane on every interface, does it hear a
/// majority of the voters, and does the agent have its vote? Asks for no token.
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    responses((status = 200, description = "It is well", body = Health), (status = 503, description = "It is not, and why", body = Health))
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    if let Some(reason) = unwell(&app).await {
        return Health::response(vec![reason]);
    }
    match app.status().await {
        Ok(status) => Health::response(unready(&status)),
        Err(e) => e.into_response(),
    }
}

/// Why the lease loop is not well; `None` if it is.
async fn unwell(app: &App) -> Option<String> {
    match tokio::time::timeout(ALIVE_TIMEOUT, app.is_alive()).await {
        Ok(true) => None,
        Ok(false) => Some("the lease loop has ended".into()),
        Err(_) => Some(format!("the lease loop did not answer within {ALIVE_TIMEOUT:?}")),
    }
}

/// Why this node could not serve.
fn unready(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if status.quorate != Some(true) {
        reasons.push("the agent hears no majority of the voters".into());
    }
    if status.silent {
        reasons.push("the agent has just started and has no vote yet".into());
    }
    if status.has_data_plane() {
        if status.interfaces.is_empty() {
            reasons.push("the data plane is on no interface".into());
        }
        let bare = status.interfaces.iter().filter(|interface| interface.mode.is_none());
        reasons.extend(bare.map(|interface| format!("no program is on the way in of {}", interface.name)));
    }
    reasons
}

/// The name in a path, decoded.
pub(super) fn name_of(name: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    match name {
        Ok(Path(name)) => Ok(name),
        Err(e) => Err(ApiError::bad_request(format!("the path can't be read: {}", e.body_text()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::InterfaceStatus;

    #[test]
    fn ready_is_who_could_serve() {
        let interface = |mode: Option<&str>| InterfaceStatus {
            name: "eth0".into(),
            mode: mode.map(str::to_owned),
            carrier: true,
            announces: true,
            heard: None,
        };
        let ready = Status {
            quorate: Some(true),
            mode: "cluster".into(),
            interfaces: vec![interface(Some("native"))],
            ..Status::default()
        };
        assert_eq!(unready(&ready), Vec::<String>::new());
        let bare = Status { interfaces: vec![interface(None)], ..ready.clone() };
        assert_eq!(unready(&bare), ["no program is on the way in of eth0"]);
        let alone = Status { quorate: Some(false), silent: true, interfaces: Vec::new(), ..ready.clone() };
        assert_eq!(unready(&alone).len(), 3);
        let witness = Status { mode: "witness".into(), interfaces: Vec::new(), ..ready };
        assert_eq!(unready(&witness), Vec::<String>::new());
    }
}
