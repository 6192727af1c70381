//! The live page, and the stream of events that it shows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt as _};

use super::Shared;

/// Needs no build step and nothing from other servers.
const PAGE: &str = include_str!("page.html");

pub async fn page() -> Response {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}

/// The present state, then an event per decision. A client that is too slow misses some.
pub async fn events(State(shared): State<Arc<Shared>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let later = BroadcastStream::new(shared.server.events());
    let now = serde_json::to_string(&shared.server.view()).unwrap_or_default();
    let now = tokio_stream::once(Event::default().event("state").data(now));
    let later =
        later.filter_map(|event| event.ok().map(|text| Event::default().event("decision").data(&*text)));
    Sse::new(now.chain(later).map(Ok)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}
