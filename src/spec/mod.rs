//! L1: series specs, from what was written to what it means. Pure: no I/O but [`load`]'s directory read.
//!
//! The way of a file: [`yaml`] (a tree with places) → [`decode`](mod@decode) (serde types) → [`written`] (the keys,
//! exactly) → [`compile`] and [`metrics`] (checked, defaults filled in) → [`resolved`], which is what the engine works with.
//! [`problem`] is how anything wrong is told, [`units`] how time and sizes are written; the topology uses both.

pub mod compile;
pub mod decode;
mod deserializer;
pub mod load;
pub mod metrics;
mod place;
pub mod problem;
mod raw;
pub mod resolved;
pub mod secret;
pub mod units;
pub mod written;
pub mod yaml;

pub use load::{load_dir, load_files, load_texts};
pub use problem::Problem;
pub use resolved::{
    Accumulator, AccumulatorKind, Aggregation, Cardinality, CardinalityOverflow, Field, Granularity, KafkaOutput,
    LatePolicy, Metric, Retention, Spec, Specs, UnknownDimensions, WindowRules,
};
pub use secret::Secret;
