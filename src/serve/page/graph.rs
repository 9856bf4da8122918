//! The topology as a drawing: stages in layers, each one step behind what it takes from; once from left to right, once
//! from top to bottom for narrow screens. Sizes are attributes, not styles, so that a strict policy lets them pass.

use maud::{Markup, html};

use super::figures::{BAR, Figures};
use crate::topology::{Plan, StagePlan};

/// A stage's box, and the room between two.
const BOX: (f64, f64) = (168.0, 116.0);
const GAP: (f64, f64) = (40.0, 28.0);

/// Which way the ticks flow in the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From left to right.
    Right,
    /// From top to bottom.
    Down,
}

/// The drawing.
pub fn graph(plan: &Plan, figures: &Figures, way: Way) -> Markup {
    let places = places(plan, way);
    let edge = |axis: fn(&(f64, f64)) -> f64| places.iter().map(axis).fold(0.0, f64::max);
    let (width, height) = (edge(|p| p.0) + BOX.0 + 4.0, edge(|p| p.1) + BOX.1 + 4.0);
    let class = if way == Way::Right { "graph right" } else { "graph down" };
    html! {
        svg class=(class) viewBox=(format!("-2 -2 {width} {height}")) width=(width) height=(height)
            role="group" aria-label="the running topology" {
            @for (index, stage) in plan.stages.iter().enumerate() {
                @for from in &stage.from {
                    @if let (Some(start), Some(end)) = (places.get(*from), places.get(index)) {
                        (lane(*start, *end, way, &format!("s.{}.lane", stage.name), figures))
                    }
                }
            }
            @for (stage, at) in plan.stages.iter().zip(&places) {
                (node(stage, *at, figures))
            }
        }
    }
}

/// The corner of every stage's box.
fn places(plan: &Plan, way: Way) -> Vec<(f64, f64)> {
    let mut layers: Vec<usize> = Vec::new();
    let mut taken: Vec<usize> = Vec::new();
    let mut places = Vec::new();
    // Stages stand upstream first.
    for stage in &plan.stages {
        let layer = stage.from.iter().filter_map(|from| layers.get(*from)).map(|layer| layer + 1).max().unwrap_or(0);
        layers.push(layer);
        taken.resize(taken.len().max(layer + 1), 0);
        let (along, across) = (layer as f64, taken[layer] as f64);
        taken[layer] += 1;
        let (column, row) = if way == Way::Right { (along, across) } else { (across, along) };
        places.push((column * (BOX.0 + GAP.0), row * (BOX.1 + GAP.1)));
    }
    places
}

fn lane(start: (f64, f64), end: (f64, f64), way: Way, key: &str, figures: &Figures) -> Markup {
    let path = match way {
        Way::Right => {
            let (x, y) = (start.0 + BOX.0, start.1 + BOX.1 / 2.0);
            let (to_x, to_y) = (end.0, end.1 + BOX.1 / 2.0);
            let middle = to_x - GAP.0 / 2.0;
            format!("M{x} {y}H{middle}V{to_y}H{to_x}")
        }
        Way::Down => {
            let (x, y) = (start.0 + BOX.0 / 2.0, start.1 + BOX.1);
            let (to_x, to_y) = (end.0 + BOX.0 / 2.0, end.1);
            let middle = to_y - GAP.1 / 2.0;
            format!("M{x} {y}V{middle}H{to_x}V{to_y}")
        }
    };
    html! { path class=(format!("lane {}", figures.state(key))) data-base="lane" data-state=(key) d=(path) {} }
}

fn node(stage: &StagePlan, at: (f64, f64), figures: &Figures) -> Markup {
    let (name, kind) = (&stage.name, stage.kind.name);
    let key = format!("s.{name}");
    let text = |x: f64, y: f64, class: &str, figure: &str| {
        let key = format!("{key}.{figure}");
        html! { text class=(class) x=(x) y=(y) data-text=(key) { (figures.text(&key)) } }
    };
    let bar = |y: f64, class: &str, figure: &str| {
        let key = format!("{key}.bar.{figure}");
        let (x, width) = (figures.x.get(&key).unwrap_or(&0.0), figures.width.get(&key).unwrap_or(&0.0));
        html! { rect class=(class) x=(x) y=(y) width=(width) height="5" data-bar=(key) {} }
    };
    let right = BOX.0 - 10.0;
    html! {
        a href=(format!("/stages/{name}")) aria-label=(format!("stage {name}, {kind}")) {
            g class=(format!("stage {}", figures.state(&key))) data-base="stage" data-state=(key)
                transform=(format!("translate({} {})", at.0, at.1)) {
                rect class="box" width=(BOX.0) height=(BOX.1) rx="3" {}
                text class="name" x="10" y="18" { (name) @if stage.instances > 1 {
                    tspan class="dim" data-text=(format!("{key}.count")) { (figures.text(&format!("{key}.count"))) }
                } }
                text class="dim" x="10" y="32" { (kind) }
                text class="dim" x="10" y="52" { "rate" }
                (text(right, 52.0, "number", "rate"))
                text class="dim" x="10" y="67" { "lag" }
                (text(right, 67.0, "number", "lag"))
                g transform="translate(10 76)" {
                    rect class="track" width=(BAR) height="5" {}
                    (bar(0.0, "busy", "busy"))
                    (bar(0.0, "backpressured", "backpressured"))
                }
                g transform="translate(10 87)" {
                    rect class="track" width=(BAR) height="5" {}
                    (bar(0.0, "fill", "fill"))
                }
                (text(10.0, 107.0, "dim", "room"))
                (text(right, 107.0, "number dim", "taken"))
            }
        }
    }
}
