//! Responses to requests that were not done: one JSON object, with a word for
//! programs, a sentence for people and the exit code that `vip-ctl` would have,
//! under a suitable HTTP status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{agent::control::Response as Answer, exit::Exit};

/// Seconds after which a client that asked too often, or at a bad time, may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How to send a token.
const SCHEME: HeaderValue = HeaderValue::from_static("Bearer");

/// The body of every response that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong.
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// A word that does not change: `bad_request`, `unauthorized`,
    /// `forbidden`, `no_such`, `method_not_allowed`, `timeout`, `refused`,
    /// `promote_failed`, `busy`, `too_large`, `wrong_host`, `too_many`,
    /// `no_quorum`, `ending` or `failed`.
    code: &'static str,
    /// A sentence.
    message: String,
    /// The exit code that `vip-ctl` has for it.
    exit: u8,
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    exit: Exit,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        Self { status, code, exit, message: message.into() }
    }

    /// An exit code as `vip-ctl` has it, and its sentence.
    fn of_exit(code: u8, message: String) -> Self {
        let exit = Exit::from_code(code);
        let (status, word) = match exit {
            Exit::Usage | Exit::Protocol | Exit::NoInput => (StatusCode::BAD_REQUEST, "bad_request"),
            Exit::NoSuch => (StatusCode::NOT_FOUND, "no_such"),
            Exit::Unsafe | Exit::Occupied => (StatusCode::CONFLICT, "refused"),
            Exit::PromoteFailed => (StatusCode::CONFLICT, "promote_failed"),
            Exit::Busy => (StatusCode::CONFLICT, "busy"),
            Exit::NoQuorum => (StatusCode::SERVICE_UNAVAILABLE, "no_quorum"),
            Exit::NotLoaded => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
            Exit::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Exit::Ok | Exit::Unwell | Exit::Software | Exit::System | Exit::NoPermission | Exit::Config => {
                (StatusCode::INTERNAL_SERVER_ERROR, "failed")
            }
        };
        Self::new(status, word, exit, message)
    }

    /// A failure of this node.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::of_exit(Exit::Software as u8, message.into())
    }

    /// There is no group or node of this name.
    pub(super) fn no_such(message: String) -> Self {
        Self::of_exit(Exit::NoSuch as u8, message)
    }

    /// There was no outcome in time.
    pub(super) fn timeout(what: &str) -> Self {
        Self::of_exit(Exit::Timeout as u8, format!("timed out: {what}"))
    }

    /// The request's form is wrong.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::of_exit(Exit::Usage as u8, message.into())
    }

    /// The body is longer than `max` bytes.
    pub(super) fn too_large(max: usize) -> Self {
        let message = format!("the body is too large: send {max} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", Exit::Usage, message)
    }

    /// The client asks more often than it may.
    pub(super) fn too_many() -> Self {
        let message = "too many requests: ask less often, and again in a second";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", Exit::Busy, message)
    }

    /// The same data is still being read for another client.
    pub(super) fn occupied(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", Exit::Busy, message)
    }

    /// A browser asks in the name of another site's page.
    pub(super) fn other_site() -> Self {
        let message = "a page of another site asks, and gets nothing: type this address into the browser";
        Self::new(StatusCode::FORBIDDEN, "forbidden", Exit::NoPermission, message)
    }

    /// No token, or none that is known.
    pub(super) fn no_token(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", Exit::NoPermission, message)
    }

    /// A token that may read and not change anything.
    pub(super) fn weak_token() -> Self {
        let message = "this token may only read: take one of a line `operate`";
        Self::new(StatusCode::FORBIDDEN, "forbidden", Exit::NoPermission, message)
    }

    /// A POST without the header that no other site's page can send.
    pub(super) fn no_marker(header: &str) -> Self {
        let message = format!("a POST needs the header {header}: 1, which a page of another site can't send");
        Self::new(StatusCode::FORBIDDEN, "forbidden", Exit::NoPermission, message)
    }

    /// A host name that could belong to any site, on a socket that needs no
    /// token.
    pub(super) fn wrong_host() -> Self {
        let message = "on this socket the host has to be localhost or an IP address";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", Exit::NoPermission, message)
    }
}

impl From<Answer> for ApiError {
    /// An answer that does not fit the request.
    fn from(answer: Answer) -> Self {
        if let Answer::Error { code, message } = answer {
            return Self::of_exit(code, message);
        }
        Self::failed("the agent's answer does not fit the request")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, exit, message } = self;
        let body = ErrorBody { error: ErrorDetail { code, message, exit: exit as u8 } };
        let mut response = (status, Json(body)).into_response();
        if exit == Exit::Busy {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        } else if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, SCHEME);
        }
        response
    }
}

/// The response for a path that does not exist.
pub(super) async fn no_such_path() -> ApiError {
    ApiError::no_such("there is no such path: /api/v1/openapi.json lists what there is".into())
}

/// The response for a method that a path does not have.
pub(super) async fn no_such_method() -> ApiError {
    let message = "the path does not take this method: /api/v1/openapi.json lists what there is";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_become_the_fitting_status() {
        let status = |exit: Exit| ApiError::of_exit(exit as u8, String::new()).status.as_u16();
        let expected = [
            (Exit::Usage, 400),
            (Exit::NoSuch, 404),
            (Exit::Unsafe, 409),
            (Exit::PromoteFailed, 409),
            (Exit::Busy, 409),
            (Exit::NoQuorum, 503),
            (Exit::NotLoaded, 503),
            (Exit::Timeout, 504),
            (Exit::System, 500),
        ];
        for (exit, expected) in expected {
            assert_eq!(status(exit), expected, "{exit:?}");
        }
    }
}
