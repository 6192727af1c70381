//! `serve`: decisions over HTTP, metrics for Prometheus, and a live page.
//!
//! Decisions are made in a thread of their own, one bar after the other. Handlers put bars into a queue of limited length and wait for
//! the answer; a client that reads slowly, or not at all, keeps only itself waiting.

mod metrics;
mod page;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Args;
use phalanx::gpu::Gpu;
use serde::Deserialize;

use crate::console::{note, say};
use crate::live::DeskArgs;
use crate::live::bars::Message;
use worker::{Answer, Server};

/// Largest body of a request.
const MOST_BYTES: usize = 1 << 20;

/// Time that a client has to send a body.
const BODY: Duration = Duration::from_secs(10);

/// Shortest token.
const LEAST_TOKEN: usize = 16;

#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub desk: DeskArgs,
    /// Address to listen on. Any but a loopback address needs a token.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8765")]
    pub listen: SocketAddr,
    /// File whose first line is the token that clients have to send (`Authorization: Bearer TOKEN`, or `?token=TOKEN` in a browser).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// State that all handlers share.
struct Shared {
    server: Server,
    token: Option<String>,
}

pub fn serve(args: &ServeArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    ensure!(
        token.is_some() || args.listen.ip().is_loopback(),
        "--listen {}: anyone who reaches this address could send bars and read positions; give a token (--token-file)",
        args.listen
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the server")?;
    // Before the device is opened, which takes longest.
    let listener = runtime.block_on(tokio::net::TcpListener::bind(args.listen)).with_context(|| {
        format!("--listen {}: choose another port, or end the program that uses it", args.listen)
    })?;
    let address = listener.local_addr().context("the address of the server")?;
    let (server, thread) = Server::start(&args.desk, open)?;
    let shared = Arc::new(Shared { server, token });
    say!("Listening on http://{address}/");
    note!("Bars go to POST /bars; GET /health, GET /metrics; Ctrl-C ends the program");
    let routes = router(shared.clone());
    let stopped = shared.server.stopped();
    let served = runtime.block_on(async {
        let server = axum::serve(listener, routes).into_future();
        tokio::select! {
            served = server => served.context("serving"),
            () = signalled() => Ok(()),
            () = stopped => Ok(()),
        }
    });
    // Open connections end with the program: streams of events never do by themselves.
    shared.server.stop();
    let ended = thread.join().unwrap_or_else(|_| bail!("the thread of the decisions failed"));
    runtime.shutdown_background();
    let summary = ended?;
    note!("{summary}");
    served.map(|()| ExitCode::SUCCESS)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/events", get(page::events))
        .route("/bars", post(bars))
        .route("/last", get(last))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(shared.clone(), authorised))
        .with_state(shared)
}

/// Ctrl-C or SIGTERM.
async fn signalled() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            let _ = interrupt.await;
            return;
        };
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = interrupt.await;
    }
}

fn read_token(path: &std::path::Path) -> Result<String> {
    let text = crate::checked::read_text(path, 1 << 16)?;
    let token = text.lines().next().unwrap_or_default().trim().to_string();
    ensure!(
        token.len() >= LEAST_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "{}: the token is its first line, at least {LEAST_TOKEN} visible ASCII characters",
        path.display()
    );
    Ok(token)
}

#[derive(Deserialize)]
struct Asked {
    token: Option<String>,
}

/// Lets requests with the token through.
async fn authorised(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    if shared.token.is_none() && !is_local(&headers) {
        return fault(
            StatusCode::FORBIDDEN,
            "without a token only pages and programs of this machine are answered",
        );
    }
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).or(asked.token.as_deref());
    match &shared.token {
        Some(token) if !sent.is_some_and(|sent| equal(sent.as_bytes(), token.as_bytes())) => {
            fault(StatusCode::UNAUTHORIZED, "missing or wrong token: Authorization: Bearer TOKEN")
        }
        _ => next.run(request).await,
    }
}

/// Whether a request names this machine, and comes from none of another site's pages: those could send bars through the user's browser.
fn is_local(headers: &HeaderMap) -> bool {
    let local = |host: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
            Ok(_) => name,
            Err(_) => host,
        });
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
    };
    let text =
        |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or_default());
    let origin = text(header::ORIGIN).map(|origin| origin.strip_prefix("http://").unwrap_or_default());
    text(header::HOST).is_none_or(local) && origin.is_none_or(local)
}

/// Compares in a time that does not depend on the first difference.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn fault(status: StatusCode, reason: impl ToString) -> Response {
    (status, axum::Json(serde_json::json!({ "error": reason.to_string() }))).into_response()
}

/// Bars in JSON, one object a line. Answers with a line per closed bar, and with an error per line that could not be used; the status is
/// 400 if no line could be.
async fn bars(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    let body = match tokio::time::timeout(BODY, to_bytes(body, MOST_BYTES)).await {
        Err(_) => return fault(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s"),
        Ok(Err(_)) => {
            return fault(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body could not be read, or has more than 1 MiB",
            );
        }
        Ok(Ok(body)) => body,
    };
    let (mut lines, mut good) = (String::new(), 0);
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match Message::from_json(line) {
            Ok(message) => shared.server.ask(message).await,
            Err(error) => Answer::Refused(format!("{error:#}")),
        };
        match answer {
            Answer::Decided(replies) => {
                good += usize::from(replies.is_empty());
                for reply in replies {
                    good += usize::from(reply.is_ok());
                    lines += &match reply {
                        Ok(reply) => reply.json(false),
                        Err(error) => serde_json::json!({ "error": error, "line": number + 1 }).to_string(),
                    };
                    lines.push('\n');
                }
            }
            Answer::Refused(error) => {
                lines += &serde_json::json!({ "error": error, "line": number + 1 }).to_string();
                lines.push('\n');
            }
            // Decisions made already are answered all the same.
            Answer::Busy | Answer::Ended => {
                let error = "too many bars are waiting, or the program is ending: send this line and those after it later";
                lines += &serde_json::json!({ "error": error, "line": number + 1 }).to_string();
                lines.push('\n');
                let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
                return (StatusCode::SERVICE_UNAVAILABLE, kind, lines).into_response();
            }
        }
    }
    let status = if good > 0 || lines.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, [(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let view = shared.server.view();
    let body = serde_json::json!({
        "status": if view.bars_missing == 0 { "ready" } else { "warming up" },
        "bars_missing": view.bars_missing,
        "last_bar": view.last.as_ref().map(|reply| reply.time),
        "decisions": view.decisions,
        "violations": view.violations,
    });
    axum::Json(body).into_response()
}

/// The answer to the last bar, for a client that lost its connection: a bar is decided on once.
async fn last(State(shared): State<Arc<Shared>>) -> Response {
    match shared.server.view().last {
        Some(reply) => ([(header::CONTENT_TYPE, "application/json")], reply.json(false)).into_response(),
        None => fault(StatusCode::NOT_FOUND, "no bar has come yet"),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.server.metrics() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => fault(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(equal(b"abc", b"abc") && !equal(b"abc", b"abd") && !equal(b"abc", b"ab") && equal(b"", b""));
    }

    #[test]
    fn requests_of_other_sites_are_known() {
        let local = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            is_local(&headers)
        };
        for host in ["localhost", "localhost:8765", "127.0.0.1:80", "[::1]:8765", "[::1]"] {
            assert!(local(host, None) && local(host, Some(&format!("http://{host}"))), "{host}");
            assert!(!local(host, Some("http://evil.example")) && !local(host, Some("null")), "{host}");
        }
        assert!(!local("rebound.example:8765", None));
    }

    #[test]
    fn a_token_is_long_and_visible() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in
            [("0123456789abcdef\nrest", true), ("short", false), ("0123456789abcde \u{e9}", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_token(&path).is_ok(), good, "{text}");
        }
    }
}
