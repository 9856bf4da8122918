//! Ledger, series and specs as tables.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use maud::{Markup, html};

use super::figures::grouped;
use super::frame;
use crate::model::{SeriesId, SpecId};
use crate::serve::Served;
use crate::serve::read::{ReadError, scan, specs as rows, state};
use crate::store::BarScan;
use crate::telemetry::load::short;

/// How many of the finest windows the rates of series are taken from.
const WINDOWS: i64 = 10;
/// The most series listed.
const LISTED: usize = 50;
/// The most bars looked at for one spec.
const BARS: usize = 200_000;

/// `/ledger`
pub async fn ledger(State(served): State<Arc<Served>>) -> Result<Response, ReadError> {
    let rows = state::ledger(&served, "")?;
    let number = |count: u64| grouped(count as f64);
    let reasons = |reasons: &std::collections::BTreeMap<&str, u64>| {
        let told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
        if told.is_empty() { "–".to_owned() } else { told.join(", ") }
    };
    let contents = html! {
        p class="dim" { "received = accepted + rejected + duplicate; accepted = in bars + open + in flight + dropped" }
        div class="scroll" { table {
            (frame::head(&["spec", "received", "accepted", "in bars", "open", "in flight", "duplicate", "rejected", "dropped"]))
            tbody { @for row in &rows { tr {
                td { @if row.spec.is_empty() { "no spec" } @else { (row.spec) } }
                @for count in [row.received, row.accepted, row.in_bars, row.open] { td { (number(count)) } }
                td { (grouped(row.in_flight as f64)) }
                td { (number(row.duplicate)) }
                td { (reasons(&row.rejected)) }
                td { (reasons(&row.dropped)) }
            } } }
        } }
        p { a href="/ledger" { "read again" } }
    };
    Ok(frame::still(&served, "/ledger", "Ledger", &contents))
}

/// `/specs`
pub async fn specs(State(served): State<Arc<Served>>) -> Response {
    let contents = html! {
        @for spec in rows::specs(&served.context) {
            h2 { (spec.spec) }
            p class="dim" { "dimensions " (spec.dimensions.join(", ")) " · granularities " (spec.granularities.join(", "))
                " · " (grouped(spec.series as f64)) " series" }
            div class="scroll" { table {
                (frame::head(&["metric", "type", "unit", "what it is"]))
                tbody { @for metric in &spec.metrics { tr {
                    td { (metric.name) }
                    td { (metric.ty) }
                    td { (metric.unit.as_deref().unwrap_or("–")) }
                    td class="wrap" { (metric.description.as_deref().unwrap_or("–")) }
                } } }
            } }
        }
    };
    frame::still(&served, "/specs", "Specs", &contents)
}

/// `/series`: the busiest series by their last stored bars, and specs by how many series they have.
pub async fn series(State(served): State<Arc<Served>>) -> Result<Response, ReadError> {
    let mut found = scan(&served, |served, outlet| {
        let top = busiest(served)?;
        let _ = outlet.give(top);
        Ok(())
    })?;
    let top = found.next().await.unwrap_or_else(|| Ok(Vec::new()))?;
    let contents = html! {
        h2 { "Busiest, by the bars stored of the last " (WINDOWS) " windows" }
        (busiest_table(&served, &top))
        h2 { "Specs by cardinality" }
        (cardinality(&served))
    };
    Ok(frame::still(&served, "/series", "Series", &contents))
}

/// A series and its ticks a second.
type Busy = (SpecId, SeriesId, f64);

fn busiest(served: &Served) -> Result<Vec<Busy>, ReadError> {
    let mut found = Vec::new();
    for spec in served.context.specs.iter() {
        let Some(finest) = spec.granularities.first() else { continue };
        let span = finest.length.saturating_mul(WINDOWS);
        let from = served.context.clock.now().saturating_sub(span);
        let scan = BarScan { spec: spec.id, granularity: 0, series: None, from, to: i64::MAX };
        let (mut ticks, mut left) = (HashMap::<SeriesId, u64>::new(), BARS);
        served.context.store.scan_bars(&scan, &mut |head, _| {
            *ticks.entry(head.series).or_default() += head.ticks;
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        found.extend(ticks.into_iter().map(|(series, ticks)| (spec.id, series, ticks as f64 * 1e9 / span as f64)));
    }
    found.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.0.cmp(&b.1.0)));
    found.truncate(LISTED);
    Ok(found)
}

fn busiest_table(served: &Served, top: &[Busy]) -> Markup {
    let context = &served.context;
    html! {
        div class="scroll" { table {
            (frame::head(&["series", "spec", "ticks/s"]))
            tbody {
                @for (spec, series, rate) in top {
                    @let key = context.catalog.key(*spec, *series).to_string();
                    @let name = &context.specs.get(*spec).name;
                    tr {
                        td { a href=(super::windows::address(name, &key)) { (key) } }
                        td { (name) }
                        td { (short(*rate)) }
                    }
                }
                @if top.is_empty() { tr { td colspan="3" { "no bar was stored lately" } } }
            }
        } }
    }
}

fn cardinality(served: &Served) -> Markup {
    let mut specs = rows::specs(&served.context);
    specs.sort_by_key(|spec| std::cmp::Reverse(spec.series));
    html! {
        div class="scroll" { table {
            (frame::head(&["spec", "series", "limit"]))
            tbody { @for spec in &specs { tr {
                td { a href=(super::windows::address(&spec.spec, "")) { (spec.spec) } }
                td { (grouped(spec.series as f64)) }
                td { (served.context.specs.by_name(&spec.spec).map_or(0.0, |spec| f64::from(spec.cardinality.limit)) as u64) }
            } } }
        } }
    }
}
