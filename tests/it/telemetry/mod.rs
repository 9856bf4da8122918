//! What barline tells of itself, as those who listen hear it.

mod dashboards;
mod exposition;
mod pushed;
mod scrape;
mod stalled;
