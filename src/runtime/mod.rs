//! L3: the shell around the stages. Waiting, sending, counting, time and failure live here, once.
//!
//! Read in this order: [`stage`] and [`source`] (what a stage is), [`lane`], [`mailbox`] and [`outlet`] (how
//! envelopes move and where waiting is counted), [`meter`] (what can be seen from outside; of it [`phases`] and [`thread_time`]), [`measures`] (what some stages know beside), [`trace`] (one batch followed), [`tap`] (some batches shown), [`worker`] (the life of
//! a stage instance), [`actor`] (the one actor that hosts them all), [`mod@launch`] (a plan becomes running actors),
//! [`drain`] (how they end), [`recovery`] (what the last process left), [`producers`] (who sent what already), [`listeners`] (where), [`door`], [`places`], [`tls`], [`guard`], [`gate`] and [`refusals`] (who may connect, and what for), [`hand_over`] (what the next generation goes on with), [`sinks`] (what can be seen of who sends bars away), [`sim`] (all of it on one paused thread).

pub mod actor;
pub mod chaos;
pub mod clock;
pub mod context;
pub mod door;
pub mod drain;
pub mod gate;
pub mod guard;
pub mod hand_over;
pub mod lane;
pub mod launch;
pub mod listeners;
pub mod mailbox;
pub mod measures;
pub mod meter;
pub mod outlet;
pub mod phases;
pub mod places;
pub mod producers;
pub mod recovery;
pub mod refusals;
pub mod rescale;
pub mod scaling;
pub mod sim;
pub mod sinks;
pub mod source;
pub mod stage;
pub mod tap;
pub mod thread_time;
pub mod tls;
pub mod trace;
pub mod worker;

pub use chaos::{Act, Chaos, Moment};
pub use clock::{Clock, Steady, SystemClock, VirtualClock};
pub use context::{BarFeed, Context, Promise, load_catalog};
pub use door::{Door, Speaks};
pub use drain::{DrainReport, Exit};
pub use guard::Guard;
pub use hand_over::HandOver;
pub use launch::{Built, Placement, Running, launch};
pub use listeners::Listeners;
pub use measures::Measures;
pub use meter::{InstanceState, Meter};
pub use outlet::SourceOutlet;
pub use phases::Spent;
pub use producers::{Admission, Producers};
pub use recovery::{Found, Recovery};
pub use scaling::{ScaleError, Scaling};
pub use sinks::{Latencies, Link, Sink, Sinks};
pub use source::{Source, SourceContext};
pub use stage::{Output, Severity, Stage, StageError, StageFactory, Start};
pub use trace::Tracer;
