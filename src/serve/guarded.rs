//! The guard before every call, over HTTP; gRPC's stands where its port is opened.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;

use crate::runtime::guard::{Guard, Refusal};
use crate::topology::security::Role;

/// The HTTP paths of `router`, each behind the guard but those that say whether the process is alive.
pub fn http(router: Router, guard: Arc<Guard>) -> Router {
    router.layer(from_fn_with_state(guard, ask))
}

async fn ask(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/health" | "/ready") {
        return next.run(request).await;
    }
    match guard.admit(request.headers(), Role::Query) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

/// A browser asks its user for the token when it sees `Basic`.
fn refused(refusal: Refusal) -> Response {
    let body = Json(json!({ "error": refusal.to_string() }));
    match refusal {
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, body).into_response(),
        Refusal::Unauthenticated => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"barline\", Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, body).into_response()
        }
    }
}
