//! L1: the topology file, from what was written to a plan. Pure: no I/O, no clock.
//!
//! The way of a file: [`crate::spec::yaml`] (a tree with places) → [`overrides`] (changes from outside) →
//! [`written`] (the keys, exactly) → [`settings`] (with [`telemetry`], [`otlp`] and `otel_env`) and [`compile`](mod@compile) (each stage with its kind) → [`check`]
//! (what the graph must keep to) → [`plan`], which is what is launched. [`graph`] draws a plan.

pub mod check;
pub mod compile;
mod draft;
#[cfg(test)]
mod fake;
pub mod graph;
pub mod kind;
mod order;
mod otel_env;
pub mod otlp;
pub mod overrides;
pub mod plan;
pub mod security;
pub mod settings;
pub mod telemetry;
pub mod written;

pub use compile::{Machine, compile};
pub use kind::{
    AnyConfig, Complaint, ConfigNode, Facts, Flow, Kind, Parse, ParsedConfig, Role, StageConfig, parse_config,
};
pub use otlp::{CollectorPlan, CollectorTls, Compression, Protocol, Signal};
pub use overrides::Override;
pub use plan::{Budget, MailboxPlan, Plan, ScalePlan, StagePlan, WhenFull};
pub use telemetry::TelemetryPlan;

pub use crate::spec::problem::{self, Problem};
pub use crate::spec::units::{Address, ByteSize, DurationText};
