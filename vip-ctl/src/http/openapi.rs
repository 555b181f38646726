//! The description of the API for programs, generated from the handlers
//! themselves.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{error::ApiError, events, operate, read};

/// The paths and types of the description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "vip",
        description = "Who holds which VIP, and moving it. One agent's API: each agent answers for the whole \
                       cluster. On the unix socket http.sock, and on TCP where [api] in vip.toml says so, there \
                       with a token: `read` for GET, `operate` for POST. An error is an object with a word, a \
                       sentence and vip-ctl's exit code.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        read::status,
        read::groups,
        read::group,
        read::nodes,
        events::events,
        events::history,
        read::metrics,
        read::healthz,
        read::readyz,
        operate::switchover,
        operate::promote,
        operate::demote,
        operate::failover,
        operate::standby,
        operate::unstandby,
        operate::pause,
        operate::resume,
    ),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Described;

/// Adds the token by which clients identify themselves over TCP.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The OpenAPI document, as JSON.
///
/// # Errors
/// If it can't be serialized.
pub fn document() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Described::openapi())?;
    text.push('\n');
    Ok(text)
}

/// Serves [`document`].
pub(super) async fn serve() -> Result<Response, ApiError> {
    let text = document().map_err(|e| ApiError::failed(format!("could not write the description: {e}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The description in the repository, for people to read and compare.
    const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    /// Set to write it anew instead of comparing.
    const UPDATE: &str = "VIP_UPDATE_DOCS";

    #[test]
    fn the_kept_description_is_what_the_handlers_say() {
        let document = document().unwrap();
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(KEPT, &document).unwrap();
        }
        let kept = std::fs::read_to_string(KEPT).unwrap();
        assert!(
            kept == document,
            "docs/openapi.json is not what the handlers say: run this test with {UPDATE}=1 and look at the difference"
        );
    }

    #[test]
    fn every_response_is_described() {
        let document: serde_json::Value = serde_json::from_str(&document().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        let responses: Vec<_> =
            operations.flat_map(|item| item["responses"].as_object().unwrap().values()).collect();
        assert!(responses.len() > 20);
        // The standard asks for it.
        assert!(
            responses.iter().all(|response| response["description"].as_str().is_some_and(|d| !d.is_empty()))
        );
    }

    #[test]
    fn every_post_says_what_it_needs() {
        let document: serde_json::Value = serde_json::from_str(&document().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let posts: Vec<_> = paths.iter().filter(|(_, path)| path["post"].is_object()).collect();
        assert!(posts.len() >= 8, "{posts:?}");
        for (path, item) in posts {
            let parameters = item["post"]["parameters"].as_array().unwrap();
            let marker = parameters.iter().find(|p| p["name"] == crate::http::access::MARKER);
            assert_eq!(marker.map(|p| &p["required"]), Some(&serde_json::Value::Bool(true)), "{path}");
            assert!(item["post"]["responses"]["default"].is_object(), "{path}");
        }
    }
}
