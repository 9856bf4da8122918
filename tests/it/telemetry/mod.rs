//! What barline tells of itself, as those who listen hear it.

mod exposition;
mod scrape;
mod stalled;
