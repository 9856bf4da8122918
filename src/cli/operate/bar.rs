//! A progress bar on stderr, where somebody looks at it.

use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressStyle};

use crate::tools::Step;

/// The bar of one job; on no terminal it shows nothing.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar without progress.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("{msg:>12} {wide_bar} {percent:>3} % {elapsed_precise} eta {eta_precise}");
        Self(style.map(|style| bar.clone().with_style(style)).unwrap_or(bar))
    }

    /// Shows where a job is.
    pub fn show(&mut self, step: Step<'_>) -> ControlFlow<()> {
        if self.0.message() != step.what {
            self.0.set_message(step.what.to_owned());
        }
        self.0.set_length(step.total);
        self.0.set_position(step.done);
        ControlFlow::Continue(())
    }

    /// Removes it.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
