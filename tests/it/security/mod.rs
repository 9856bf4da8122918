//! The built binary with strangers at its doors: refused, bounded, counted.

mod check;
mod crowd;
pub mod kit;
mod roles;
mod slow;
mod tls;
