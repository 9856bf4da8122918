//! Health, queries, ledger and topology as JSON over HTTP.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::document::document;
use super::json::{BarJson, TickJson, dimensions};
use super::params::Params;
use super::read::{BarQuery, ReadError, TickQuery, bars, select, sinks, specs, state, ticks};
use super::served::Served;
use super::{convert, when};
use crate::codec::admit::quote;

const INDEX: &str = "\
barline

/health            is the process alive
/ready             is every instance of the topology at work; 503 with the reasons if not
/api/v1/bars       ?spec=NAME [&match=DIMENSION=VALUE]... [&exact] [&from=TIME] [&to=TIME] [&granularity=1s] [&limit=1000]
/api/v1/ticks      ?spec=NAME [&match=DIMENSION=VALUE]... [&exact] [&from=TIME] [&to=TIME] [&late] [&limit=1000]
/api/v1/series     the specs; with ?spec=NAME [&match=DIMENSION=VALUE]... [&exact] [&limit=1000] the series of one
/api/v1/ledger     [?spec=NAME] ticks received against ticks found in bars
/api/v1/topology   stages, instances, mailboxes
/api/v1/sinks      how far bars have come on their way to Kafka

VALUE may be * for any. TIME is RFC 3339, nanoseconds since 1970, `now`, or a span before now as in -5m.
";

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Every HTTP path.
pub fn http(served: Arc<Served>) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/api/v1/bars", get(query_bars))
        .route("/api/v1/ticks", get(query_ticks))
        .route("/api/v1/series", get(series))
        .route("/api/v1/ledger", get(ledger))
        .route("/api/v1/topology", get(topology))
        .route("/api/v1/sinks", get(sinks))
        .fallback(no_such_path)
        .method_not_allowed_fallback(only_get)
        .with_state(served)
}

async fn health(State(served): State<Arc<Served>>) -> Response {
    let now = served.context.clock.now();
    let version = env!("CARGO_PKG_VERSION");
    let uptime = served.uptime_seconds();
    let body = json!({
        "status": "ok", "version": version, "topology": served.plan.name, "uptime_seconds": uptime,
        "now_ns": now, "now": when::rfc3339(now),
    });
    Json(body).into_response()
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    let reasons = served.unready();
    match reasons.is_empty() {
        true => Json(json!({ "ready": true })).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reasons": reasons }))).into_response(),
    }
}

async fn query_bars(State(served): State<Arc<Served>>, pairs: Pairs) -> Result<Response, ReadError> {
    let allowed = ["spec", "match", "exact", "from", "to", "granularity", "limit"];
    let params = read(&served, pairs, &allowed)?;
    let spec = select::spec(&served.context.specs, needed(&params.spec)?)?.clone();
    let granularity = select::granularity(&spec, &params.granularity)?;
    let (from, to) = select::range(params.from, params.to)?;
    let series = select::Series::Matching(params.series);
    let query = BarQuery { spec, granularity, series, from, to, limit: params.limit + 1 };
    document(&served, "bars", params.limit, move |served, rows| {
        let gone = rows.gone();
        bars::bars(&served.context, &query, &gone, &mut |row| rows.push(&BarJson::from(&convert::bar(&row))))
    })
    .await
}

async fn query_ticks(State(served): State<Arc<Served>>, pairs: Pairs) -> Result<Response, ReadError> {
    let params = read(&served, pairs, &["spec", "match", "exact", "from", "to", "late", "limit"])?;
    let spec = select::spec(&served.context.specs, needed(&params.spec)?)?.clone();
    let (from, to) = select::range(params.from, params.to)?;
    let series = select::Series::Matching(params.series);
    let query = TickQuery { spec, series, from, to, limit: params.limit + 1, late: params.late };
    document(&served, "ticks", params.limit, move |served, rows| {
        let gone = rows.gone();
        ticks::ticks(&served.context, &query, &gone, &mut |row| rows.push(&TickJson::from(&convert::tick(&row))))
    })
    .await
}

async fn series(State(served): State<Arc<Served>>, pairs: Pairs) -> Result<Response, ReadError> {
    let params = read(&served, pairs, &["spec", "match", "exact", "limit"])?;
    if params.spec.is_empty() {
        return Ok(Json(json!({ "specs": specs::specs(&served.context) })).into_response());
    }
    let spec = select::spec(&served.context.specs, &params.spec)?.id;
    document(&served, "series", params.limit, move |served, rows| {
        served
            .context
            .catalog
            .matching(spec, &params.series, &mut |_, key| rows.push(&dimensions(&convert::dimensions(key))));
        Ok(())
    })
    .await
}

async fn ledger(State(served): State<Arc<Served>>, pairs: Pairs) -> Result<Response, ReadError> {
    let params = read(&served, pairs, &["spec"])?;
    Ok(Json(json!({ "specs": state::ledger(&served, &params.spec)? })).into_response())
}

async fn topology(State(served): State<Arc<Served>>) -> Response {
    Json(state::topology(&served)).into_response()
}

async fn sinks(State(served): State<Arc<Served>>) -> Result<Response, ReadError> {
    Ok(Json(sinks::sinks(&served.context)?).into_response())
}

fn read(served: &Served, pairs: Pairs, allowed: &[&str]) -> Result<Params, ReadError> {
    let Query(pairs) = pairs.map_err(|error| ReadError::Invalid(error.body_text()))?;
    Params::read(pairs, allowed, served.context.clock.now())
}

fn needed(spec: &str) -> Result<&str, ReadError> {
    let missing = || ReadError::Invalid("parameter spec is missing; /api/v1/series lists the specs".to_owned());
    Some(spec).filter(|spec| !spec.is_empty()).ok_or_else(missing)
}

async fn no_such_path(uri: Uri) -> ReadError {
    ReadError::NotFound(format!("no such path {:?}; / lists them", quote(uri.path())))
}

async fn only_get() -> Response {
    let body = Json(json!({ "error": "only GET and HEAD are answered here" }));
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

impl IntoResponse for ReadError {
    fn into_response(self) -> Response {
        (self.status(), Json(json!({ "error": self.to_string() }))).into_response()
    }
}
