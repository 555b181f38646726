//! The panel for people: one page, which loads nothing from anywhere else.

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};

use super::error::ApiError;

const PAGE: &str = include_str!("panel.html");
/// The placeholder for the nonce in the page.
const PLACE: &str = "{{nonce}}";

/// Serves the page. Its one script and its one style sheet run because they have
/// this response's nonce; anything that is injected into the page does not.
pub(super) async fn serve() -> Result<Response, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| ApiError::failed(format!("no random bytes for the page: {e}")))?;
    let nonce: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).map_err(|e| ApiError::failed(e.to_string()))?;
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE.replace(PLACE, &nonce))).into_response())
}
