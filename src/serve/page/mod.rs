//! L4: the page for browsers: what runs, drawn from the plan and live; windows, ledger, series and specs as tables.
//!
//! Rendered here; a script of its own only puts in the figures of every second. Everything comes from the binary and
//! nothing from anywhere else, which the content policy of every reply enforces.
//!
//! Read in this order: [`frame`] (what every page has), [`figures`] (live figures by key), [`stream`] (sent every second),
//! [`graph`] and [`stage`] (the topology), [`sheets`] (ledger, series, specs), [`windows`] with [`chart`] (one series).

pub mod chart;
pub mod figures;
pub mod frame;
pub mod graph;
pub mod sheets;
pub mod stage;
pub mod stream;
pub mod windows;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

use super::served::Served;

/// What a browser may do with these pages: load what this server sends, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Every path of the page.
pub fn routes() -> Router<Arc<Served>> {
    Router::new()
        .route("/", get(stage::topology))
        .route("/stages/{name}", get(stage::stage))
        .route("/windows", get(windows::windows))
        .route("/ledger", get(sheets::ledger))
        .route("/series", get(sheets::series))
        .route("/specs", get(sheets::specs))
        .route("/live", get(stream::live))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", include_str!("page.css")) }))
        .route("/live.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("live.js")) }))
        .layer(axum::middleware::map_response(guarded))
}

type Asset = ([(header::HeaderName, &'static str); 2], &'static str);

fn asset(content_type: &'static str, text: &'static str) -> Asset {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text)
}

/// Adds what keeps a browser from doing more with a reply than showing it.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
