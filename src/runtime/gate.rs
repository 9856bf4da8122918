//! The gate: the guard before every call, over HTTP and gRPC: what a call needs is told by its path.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tonic::Status;

use super::guard::{Guard, Refusal, holding};
use crate::topology::security::Role;

/// The HTTP paths of `router`, each behind the guard.
pub fn http(router: Router, guard: Arc<Guard>) -> Router {
    router.layer(from_fn_with_state(guard, ask_http))
}

/// The gRPC services of `router`, each behind the guard.
pub fn grpc(router: Router, guard: Arc<Guard>) -> Router {
    router.layer(from_fn_with_state(guard, ask_grpc))
}

/// What a path of HTTP asks for; whether the process is alive may be asked by everybody.
fn http_role(path: &str) -> Option<Role> {
    if matches!(path, "/health" | "/ready") { None } else { Some(Role::Query) }
}

/// What a method of gRPC asks for. A watch of the health lasts, which a stranger's call must not.
fn grpc_role(path: &str) -> Option<Role> {
    match path {
        "/grpc.health.v1.Health/Check" => None,
        "/tikr.v1.Tikr/IngestTicks" | "/barline.v1.Barline/Ingest" => Some(Role::Ingest),
        path if path.starts_with("/barline.v1.Admin/") => Some(Role::Admin),
        _ => Some(Role::Query),
    }
}

async fn ask_http(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.enter(&request, http_role(request.uri().path())) {
        Ok(call) => holding(next.run(request).await, call),
        Err(refusal) => refused(refusal),
    }
}

async fn ask_grpc(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.enter(&request, grpc_role(request.uri().path())) {
        Ok(call) => holding(next.run(request).await, call),
        Err(refusal) => Status::from(refusal).into_http(),
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

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::unauthenticated(refusal.to_string()),
            Refusal::Forbidden(_) => Self::permission_denied(refusal.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_names_needs_a_role() {
        assert_eq!(http_role("/health/"), Some(Role::Query));
        for (path, role) in [
            ("/tikr.v1.Tikr/IngestTicks", Some(Role::Ingest)),
            ("/tikr.v1.Tikr/QueryBars", Some(Role::Query)),
            ("/barline.v1.Barline/Tap", Some(Role::Query)),
            ("/barline.v1.Admin/Backup", Some(Role::Admin)),
            ("/grpc.health.v1.Health/Watch", Some(Role::Query)),
            ("/grpc.health.v1.Health/Check", None),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(Role::Query)),
        ] {
            assert_eq!(grpc_role(path), role, "{path}");
        }
    }
}
