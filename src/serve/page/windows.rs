//! One series: found by its spec and dimensions, with its last bars, its watermark and what is in its open windows.
//!
//! Windows are open inside the aggregators, which are asked for nothing. What is in them is read from where they have
//! it: the ticks of the journal behind the last stored bar.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::StreamExt;
use maud::{Markup, html};
use serde::Deserialize;

use super::{chart, figures, frame};
use crate::catalog::Match;
use crate::model::{SeriesKey, TimeNs};
use crate::serve::Served;
use crate::serve::read::{BarQuery, ReadError, TickQuery, bars, scan, select, ticks};
use crate::serve::when::rfc3339;
use crate::spec::Spec;

/// The most bars drawn.
const BARS: i64 = 120;
/// The most series listed.
const LISTED: usize = 40;
/// The most ticks of open windows read.
const TICKS: u64 = 50_000;

/// What stands behind the `?`.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    spec: String,
    /// `dimension=value`, several joined by `|`.
    #[serde(default)]
    series: String,
    #[serde(default)]
    granularity: String,
}

/// A bar as it is drawn and listed.
pub struct Drawn {
    /// Its window's start.
    pub start: TimeNs,
    /// Its highest event time.
    pub last: TimeNs,
    /// Its ticks.
    pub ticks: u64,
    /// Its metrics, in the spec's order.
    pub metrics: Vec<Option<f64>>,
}

/// What is in the open windows of a series.
#[derive(Default)]
struct Open {
    ticks: u64,
    first: Option<TimeNs>,
    last: Option<TimeNs>,
}

/// The page's address for a series.
pub fn address(spec: &str, series: &str) -> String {
    format!("/windows?spec={}&series={}", escaped(spec), escaped(series))
}

/// `/windows`
pub async fn windows(
    State(served): State<Arc<Served>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ReadError> {
    let Query(asked) = asked.map_err(|error| ReadError::Invalid(error.body_text()))?;
    let spec = match asked.spec.is_empty() {
        true => served.context.specs.iter().next().cloned(),
        false => Some(select::spec(&served.context.specs, &asked.spec)?.clone()),
    };
    let Some(spec) = spec else {
        return Ok(frame::still(&served, "/windows", "Windows", &html! { p { "there is no spec" } }));
    };
    let granularity = select::granularity(&spec, &asked.granularity)?;
    let found = matching(&served, &spec, &pattern(&asked.series)?);
    let contents = match found.first() {
        Some(key) => {
            let shown = show(&served, &spec, granularity, key.clone()).await?;
            html! { (form(&served, &spec, &asked)) (shown) (listed(&spec, &found)) }
        }
        None => html! { (form(&served, &spec, &asked)) p { "no series of " (spec.name) " matches" } },
    };
    Ok(frame::still(&served, "/windows", "Windows", &contents))
}

/// Reads `a=b|c=d`; also with `,` or spaces between, as people write it.
fn pattern(text: &str) -> Result<Match, ReadError> {
    let parts = text.split(['|', ',', ' ']).filter(|part| !part.is_empty());
    select::matching(parts.map(select::pair).collect::<Result<_, _>>()?, false)
}

fn matching(served: &Served, spec: &Spec, pattern: &Match) -> Vec<SeriesKey> {
    let mut found = Vec::new();
    served.context.catalog.matching(spec.id, pattern, &mut |_, key| {
        found.push(key.clone());
        if found.len() == LISTED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

async fn show(served: &Arc<Served>, spec: &Arc<Spec>, granularity: u8, key: SeriesKey) -> Result<Markup, ReadError> {
    let spec = spec.clone();
    let mut shown = scan(served, move |served, outlet| {
        let drawn = last_bars(served, &spec, granularity, &key)?;
        let open = open_ticks(served, &spec, granularity, &key, drawn.last())?;
        let _ = outlet.give(series(&spec, granularity, &key, &drawn, &open));
        Ok(())
    })?;
    shown.next().await.unwrap_or_else(|| Ok(html! {}))
}

fn length(spec: &Spec, granularity: u8) -> i64 {
    spec.granularities.get(usize::from(granularity)).map_or(1, |granularity| granularity.length)
}

fn last_bars(served: &Served, spec: &Arc<Spec>, granularity: u8, key: &SeriesKey) -> Result<Vec<Drawn>, ReadError> {
    let from = served.context.clock.now().saturating_sub(length(spec, granularity).saturating_mul(BARS));
    let series = select::Series::One(key.clone());
    let query = BarQuery { spec: spec.clone(), granularity, series, from, to: i64::MAX, limit: BARS as u64 + 16 };
    let mut drawn = Vec::new();
    bars::bars(&served.context, &query, &|| false, &mut |row| {
        let metrics = row.metrics.iter().map(|value| value.map(|value| value.to_float())).collect();
        drawn.push(Drawn { start: row.head.start, last: row.head.last, ticks: row.head.ticks, metrics });
        ControlFlow::Continue(())
    })?;
    Ok(drawn)
}

fn open_ticks(
    served: &Served,
    spec: &Arc<Spec>,
    granularity: u8,
    key: &SeriesKey,
    last: Option<&Drawn>,
) -> Result<Open, ReadError> {
    let length = length(spec, granularity);
    let recent = served.context.clock.now().saturating_sub(length.saturating_mul(2));
    let from = last.map_or(recent, |bar| bar.start.saturating_add(length));
    let series = select::Series::One(key.clone());
    let query = TickQuery { spec: spec.clone(), series, from, to: i64::MAX, limit: TICKS, late: false };
    let mut open = Open::default();
    ticks::ticks(&served.context, &query, &|| false, &mut |row| {
        open.ticks += 1;
        open.first.get_or_insert(row.timestamp);
        open.last = Some(row.timestamp);
        ControlFlow::Continue(())
    })?;
    Ok(open)
}

fn form(served: &Served, spec: &Spec, asked: &Asked) -> Markup {
    html! {
        form method="get" action="/windows" role="search" {
            label { "spec" select name="spec" {
                @for known in served.context.specs.iter() {
                    option value=(known.name) selected[known.name == spec.name] { (known.name) }
                }
            } }
            label { "series: dimension=value, several joined by |"
                input name="series" value=(asked.series) size="32" autocomplete="off" spellcheck="false"; }
            label { "granularity" select name="granularity" {
                @for known in &spec.granularities {
                    option value=(known.name) selected[known.name == asked.granularity] { (known.name) }
                }
            } }
            button type="submit" { "show" }
        }
    }
}

fn series(spec: &Spec, granularity: u8, key: &SeriesKey, drawn: &[Drawn], open: &Open) -> Markup {
    let newest = open.last.or(drawn.last().map(|bar| bar.last));
    let watermark = newest.map(|newest| rfc3339(newest.saturating_sub(spec.window.wait)));
    let length = length(spec, granularity);
    let start = open.first.map(|first| rfc3339(first.div_euclid(length) * length));
    let ticks = figures::grouped(open.ticks as f64);
    html! {
        h2 { (key) }
        dl class="facts" {
            div { dt { "watermark" } dd { (watermark.as_deref().unwrap_or("–")) } }
            div { dt { "first open window" } dd { (start.as_deref().unwrap_or("–")) } }
            div { dt { "ticks in open windows" } dd { (ticks) @if open.ticks == TICKS { " or more" } } }
            div { dt { "bars shown" } dd { (drawn.len()) } }
        }
        (chart::chart(spec, drawn))
        div class="scroll" { table {
            thead { tr {
                th scope="col" { "window start" }
                @for metric in &spec.metrics { th scope="col" { (metric.name) } }
                th scope="col" { "ticks" }
            } }
            tbody { @for bar in drawn.iter().rev().take(12) { tr {
                td { (rfc3339(bar.start)) }
                @for value in &bar.metrics { td { (value.map_or("–".to_owned(), number)) } }
                td { (figures::grouped(bar.ticks as f64)) }
            } } }
        } }
        @if drawn.is_empty() { p class="dim" { "no bar of it was stored in the last " (BARS) " windows" } }
    }
}

fn listed(spec: &Spec, found: &[SeriesKey]) -> Markup {
    html! {
        h2 { "Matching series" @if found.len() == LISTED { ", the first " (LISTED) } }
        ul class="key" { @for key in found {
            @let key = key.to_string();
            li { a href=(address(&spec.name, &key)) { (key) } }
        } }
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { figures::grouped(value) } else { format!("{value:.4}") }
}

/// As it may stand in a query of an address.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
