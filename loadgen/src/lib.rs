//! Open-loop load generator and independent verifier for barline.
//!
//! It knows barline by its gRPC contract alone. The way through, for one run:
//!
//! 1. [`cli`] and [`profile`] (`load`, `check`) say what is asked for; [`plan`] fixes the run's name, times and shares.
//! 2. `generate` makes the ticks of a connection from the seed, with values from `values`, series from
//!    `pick` and `dimensions` and times from `pace`.
//! 3. `encode` and `columnar` write them as messages of the two wires, with the tools of `wire`.
//! 4. `feed` hands the messages over when they are due; `tikr` and `native` send them through `codec` on channels of
//!    `connect`, the latter within the bounds of `in_flight`. `connection` begins anew where a stream broke, as long as
//!    `link` finds a way, and `record` keeps what was acknowledged. [`mod@run`] holds it all together.
//! 5. `meter` measures, `progress` shows, [`report`] sums up.
//! 6. [`verify`] makes `naive` bars (`aggregate`) of the ticks generated again, or of those that are `stored` and stood the
//!    `audit`, and lets `compare` and `ledger` hold them against the server's.

mod aggregate;
mod audit;
mod check;
pub mod cli;
mod codec;
mod columnar;
mod compare;
pub mod connect;
mod connection;
mod dimensions;
mod encode;
mod feed;
mod generate;
mod in_flight;
mod ledger;
mod link;
mod load;
mod meter;
mod naive;
mod native;
mod pace;
mod pick;
pub mod plan;
pub mod profile;
mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod show;
mod stored;
mod tikr;
pub mod units;
mod values;
pub mod verify;
mod wire;
