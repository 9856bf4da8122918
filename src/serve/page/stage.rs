//! The live topology, and one stage of it: its instances, times and last errors.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};

use super::figures::Figures;
use super::frame;
use super::graph::{Way, graph};
use crate::runtime::refusals::Reason;
use crate::serve::Served;
use crate::serve::read::{ReadError, select};
use crate::telemetry::Load;
use crate::topology::StagePlan;

/// `/`
pub async fn topology(State(served): State<Arc<Served>>) -> Response {
    let figures = figures(&served);
    let contents = html! {
        p class="verdict free" role="status" data-base="verdict" data-state="verdict" data-text="verdict" { "measuring" }
        (graph(&served.plan, &figures, Way::Right))
        (graph(&served.plan, &figures, Way::Down))
        ul class="key" aria-label="what the bars mean" {
            (swatch("busy", "busy"))
            (swatch("backpressured", "waiting for room downstream"))
            (swatch("track", "idle"))
            li { "second bar: how full the mailbox is, or a sink's spool" }
        }
        h2 { "Instances" }
        div class="scroll" { (instances(&served, served.plan.stages.iter(), &figures)) }
        h2 { "Ledger, in ticks" }
        dl class="facts" {
            @for name in ["accepted", "in_bars", "open", "in_flight", "dropped", "rejected", "duplicate"] {
                @let key = format!("ledger.{name}");
                div { dt { (name.replace('_', " ")) } dd data-text=(key) { (figures.text(&key)) } }
            }
        }
        h2 { "Refused calls and connections" }
        dl class="facts" {
            @for reason in Reason::ALL {
                @let key = format!("refused.{}", reason.name());
                div { dt { (reason.name()) } dd data-text=(key) { (figures.text(&key)) } }
            }
        }
    };
    frame::live(&served, "/", "Topology", &contents)
}

/// `/stages/{name}`
pub async fn stage(State(served): State<Arc<Served>>, Path(name): Path<String>) -> Result<Response, ReadError> {
    let stage = select::stage(&served.plan, &name)?;
    let figures = figures(&served);
    let contents = html! {
        p class="dim" { (stage.kind.name) " · " (stage.count()) " of it · "
            @if stage.from.is_empty() { "a source" } @else { "mailbox of " (stage.mailbox.capacity) " envelopes a lane" } }
        div class="scroll" { (instances(&served, std::iter::once(stage), &figures)) }
        h2 { "Times of the last second" }
        div class="scroll" { (times(stage, &figures)) }
        h2 { "Failures" }
        div class="scroll" { (failures(&served, stage, &figures)) }
    };
    Ok(frame::live(&served, "", &format!("Stage {name}"), &contents))
}

/// The figures of this moment; it has no rates yet.
fn figures(served: &Served) -> Figures {
    let now = served.observed.snapshot();
    Figures::new(&Load::between(&now, &now))
}

fn swatch(class: &str, label: &str) -> Markup {
    html! { li { svg viewBox="0 0 12 8" aria-hidden="true" { rect class=(class) width="12" height="8" {} } (label) } }
}

fn instances<'a>(served: &Served, stages: impl Iterator<Item = &'a StagePlan>, figures: &Figures) -> Markup {
    let columns = ["rate", "out", "lag", "depth", "busy", "idle", "backpressured", "windows", "watermark", "errors"];
    html! {
        table {
            (frame::head(&["instance", "in/s", "out/s", "lag", "mailbox", "busy", "idle", "waiting", "open windows", "watermark delay", "errors"]))
            tbody {
                @for stage in stages {
                    @for meter in served.meters().iter().filter(|meter| meter.stage == stage.name) {
                        @let key = format!("i.{}.{}", meter.stage, meter.instance);
                        tr class=(format!("row {}", figures.state(&key))) data-base="row" data-state=(key) {
                            td { a href=(format!("/stages/{}", stage.name)) { (stage.name) } " " (meter.instance) }
                            @for column in columns { (cell(&format!("{key}.{column}"), figures)) }
                        }
                    }
                }
            }
        }
    }
}

fn times(stage: &StagePlan, figures: &Figures) -> Markup {
    let labels = ["p50", "p90", "p99", "max"];
    html! {
        table {
            (frame::head(&["instance", "of a batch", "p50", "p90", "p99", "max"]))
            tbody {
                @for instance in 0..stage.instances {
                    @for (name, told) in [("queue", "waited in the mailbox"), ("handling", "worked on")] {
                        tr {
                            td { (instance) }
                            td { (told) }
                            @for label in labels {
                                (cell(&format!("i.{}.{instance}.{name}.{label}", stage.name), figures))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn failures(served: &Served, stage: &StagePlan, figures: &Figures) -> Markup {
    html! {
        table {
            (frame::head(&["instance", "state", "restarts", "poison batches", "last error"]))
            tbody {
                @for meter in served.meters().iter().filter(|meter| meter.stage == stage.name) {
                    @let key = format!("i.{}.{}", meter.stage, meter.instance);
                    tr {
                        td { (meter.instance) }
                        td { (meter.state().name()) }
                        (cell(&format!("{key}.restarts"), figures))
                        (cell(&format!("{key}.poisoned"), figures))
                        td class="wrap" { (meter.last_error().as_deref().unwrap_or("none")) }
                    }
                }
            }
        }
    }
}

fn cell(key: &str, figures: &Figures) -> Markup {
    html! { td data-text=(key) { (figures.text(key)) } }
}
