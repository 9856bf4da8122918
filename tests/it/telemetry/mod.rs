//! What barline tells of itself, as those who listen hear it.

mod collector;
mod dashboards;
mod exposition;
mod logged;
mod no_broker;
mod phases;
mod prometheus;
mod pushed;
mod scrape;
mod stalled;
