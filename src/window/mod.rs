//! L1: per-series tumbling windows over columns of ticks. Pure: time is an argument, nothing is read or sent.
//!
//! Read in this order: [`bounds`] (which window a time falls in), `series` (a series' clock), [`clock`] (what stored bars
//! tell of it), `open` (the slab of open windows, each with its `extent`), `place` (a tick finds its window, or is late), `accumulators` (one file per state
//! a metric is computed from; `natural` and `exact` are their arithmetic), `close` (windows end and cascade),
//! `deadlines` (what wall time ends), `replay` (what stored bars hold already), [`windows`] (all of it behind one door)
//! and [`state`] (what a closed bar's words mean). What is promised stands in `docs/semantics.md`.

mod accumulators;
pub mod bounds;
pub mod clock;
mod close;
mod deadlines;
mod exact;
mod extent;
mod natural;
mod open;
mod place;
mod replay;
mod series;
pub mod state;
pub mod windows;

#[cfg(test)]
mod testing;

pub use replay::Covered;
pub use windows::{Applied, Windows};
