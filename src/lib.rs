//! barline: an edge rollup engine. High-frequency ticks in over gRPC, exact bars out, as a pipeline of
//! independent actors joined by bounded mailboxes and declared in a topology file.
//!
//! It is not a general stream processor, not a long-term database, not a message broker.
//!
//! # The way of one tick, file by file
//!
//! 1. `stages/grpc_ingest/tikr.rs` reads a message off a client's stream; `codec/tikr.rs` decodes its bytes
//!    straight into the columns of a [`model::TickBatch`], asking [`catalog`] for the number of a series it has not
//!    seen yet; `stages/grpc_ingest/collector.rs` seals the batch and sends it.
//! 2. `stages/journal.rs` appends it as a compressed block (`codec/block.rs`) to the [`store`], acknowledges it and
//!    passes it on.
//! 3. `stages/shard_router.rs` picks the rows of each aggregator instance ([`routing`]).
//! 4. `stages/aggregator.rs` applies them to the open [`window`]s and gives away the bars that close.
//! 5. `stages/storage_writer.rs` merges those into the stored bars, commits, and tells whoever listens.
//! 6. [`serve`] answers queries from the store.
//!
//! Between the stages it travels in the lanes of [`runtime`], which also hosts them, counts their waiting and
//! ends them in order. Which stages there are, and how they are joined, a [`topology`] says; what a series is, a
//! [`spec`]. [`app`] puts it all together; `main.rs` is only the door.

pub mod app;
pub mod broker;
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod console;
pub mod model;
pub mod routing;
pub mod runtime;
pub mod serve;
pub mod spec;
pub mod stages;
pub mod store;
pub mod telemetry;
pub mod times;
pub mod tools;
pub mod topology;
pub mod window;
