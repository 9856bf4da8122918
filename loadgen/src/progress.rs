//! Progress of a run on standard error: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{meter::Meter, report::grouped};

/// How often the bar moves.
const REFRESH: Duration = Duration::from_millis(200);

/// How often a plain line is written.
const LINE: Duration = Duration::from_secs(5);

/// Shows the progress of the run measured by `meter`, towards `total` ticks where that is known, for as long
/// as it is polled.
pub async fn show(meter: Arc<Meter>, total: Option<u64>) {
    if stderr().is_terminal() { bar(&meter, total).await } else { lines(&meter).await }
}

async fn bar(meter: &Meter, total: Option<u64>) {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{wide_bar} {percent:>3}% {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bar = ClearOnDrop(bar);
    loop {
        tokio::time::sleep(REFRESH).await;
        bar.0.set_position(meter.progress());
        bar.0.set_message(line(meter));
    }
}

async fn lines(meter: &Meter) {
    loop {
        tokio::time::sleep(LINE).await;
        eprintln!("{}", line(meter));
    }
}

fn line(meter: &Meter) -> String {
    let (ticks, seconds) = (meter.progress(), meter.pacer().seconds());
    let rate = grouped((ticks as f64 / seconds.max(1e-3)) as u64);
    format!("{seconds:.1} s  {} ticks sent  {rate} ticks/s", grouped(ticks))
}

/// Leaves no bar behind when the run ends, and with it the future that shows it.
struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
