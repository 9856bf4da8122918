//! What `barline run` shows: a live table where stdout is a terminal, plain lines where it is not, and at the end a
//! summary of what was done.
//!
//! Read in this order: [`board`] (what is worth keeping of the bars that pass), `section` and `table`, or `lines` (how it looks),
//! `human` (numbers for people), `printer` (the terminal), [`mod@farewell`] (the summary).
//!
//! Showing must never hold up the engine: bars are looked at in sips, only the newest of a bounded number of series
//! are kept, and a terminal that stands still is not waited for.

pub mod board;
pub mod farewell;
#[cfg(test)]
mod fixtures;
mod human;
mod lines;
mod printer;
mod section;
mod table;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

pub use board::Tally;
pub use farewell::farewell;
pub use printer::LogWriter;

use crate::catalog::Catalog;
use crate::model::{BarBatch, Ledger};
use crate::runtime::Context;
use crate::spec::Specs;
use board::Board;
use lines::Lines;
use printer::Printer;

/// Time between two redraws, and what a number of lines is counted over.
const BEAT: Duration = Duration::from_secs(1);
/// After taking what is there the feed is left alone for this long, so that many small batches cost one waking.
const SIP: Duration = Duration::from_millis(20);

/// Shows bars until `stop` is cancelled, then whatever is in the feed by then, and tells what went by. `addresses` are
/// (what it is called, where it is); `tty` is whether stdout is a terminal.
///
/// Cancel `stop` when the topology has drained, so that its last bars are seen too.
pub async fn live(
    feed: broadcast::Receiver<Arc<BarBatch>>,
    context: Context,
    addresses: Vec<(String, String)>,
    stop: CancellationToken,
    tty: bool,
) -> Tally {
    let Context { specs, catalog, ledger, .. } = context;
    let header = table::header(&addresses);
    let printer = Printer::start(std::io::stdout());
    let form = if tty {
        Form::Table { header, board: Board::new(specs.len()), rate: Rate::default() }
    } else {
        printer.append(header + "\n");
        Form::Lines(Lines::default())
    };
    Show { specs, catalog, ledger, form, tally: Tally::default(), printer }.run(feed, stop).await
}

/// One of the two ways to show bars.
enum Form {
    Table { header: String, board: Board, rate: Rate },
    Lines(Lines),
}

struct Show {
    specs: Arc<Specs>,
    catalog: Arc<Catalog>,
    ledger: Arc<Ledger>,
    form: Form,
    tally: Tally,
    printer: Printer,
}

impl Show {
    async fn run(mut self, mut feed: broadcast::Receiver<Arc<BarBatch>>, stop: CancellationToken) -> Tally {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = beat.tick() => self.beat(),
                still_open = self.sip(&mut feed), if open => {
                    open = still_open;
                    sleep(SIP).await;
                }
            }
        }
        while open && !feed.is_empty() {
            open = self.sip(&mut feed).await;
        }
        self.beat();
        self.printer.finish().await;
        self.tally
    }

    /// Waits for bars and takes all that are there; `false` when none will come any more.
    async fn sip(&mut self, feed: &mut broadcast::Receiver<Arc<BarBatch>>) -> bool {
        loop {
            match feed.recv().await {
                Ok(bars) => self.take(&bars),
                Err(RecvError::Lagged(batches)) => self.tally.missed_batches += batches,
                Err(RecvError::Closed) => return false,
            }
            if feed.is_empty() {
                return true;
            }
        }
    }

    fn take(&mut self, bars: &BarBatch) {
        self.tally.count(bars);
        match &mut self.form {
            Form::Table { board, .. } => board.take(bars),
            Form::Lines(lines) => self.printer.append(lines.take(bars, self.specs.get(bars.spec), &self.catalog)),
        }
    }

    fn beat(&mut self) {
        match &mut self.form {
            Form::Table { header, board, rate } => {
                let (width, height) = printer::size();
                let totals = farewell::totals(&self.specs, &self.ledger);
                let sections = table::sections(board, &self.specs, &self.catalog, height);
                let footer = table::footer(&totals, rate.of(totals.received(), Instant::now()), &self.tally);
                self.printer.redraw(table::screen(header, sections, &footer, width, height));
            }
            Form::Lines(lines) => self.printer.append(lines.beat()),
        }
    }
}

/// How fast a count grows.
#[derive(Default)]
struct Rate(Option<(u64, Instant)>);

impl Rate {
    /// Per second since it was last asked; `None` the first time.
    fn of(&mut self, count: u64, now: Instant) -> Option<u64> {
        let (before, since) = self.0.replace((count, now))?;
        let elapsed = now.duration_since(since).as_secs_f64();
        (elapsed > 0.0).then(|| (count.saturating_sub(before) as f64 / elapsed).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;

    use super::*;
    use crate::model::SpecId;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn show(form: Form, paper: &Paper) -> Show {
        let (specs, ledger) = (Arc::new(fixtures::specs()), Arc::new(Ledger::new(1)));
        let catalog = Arc::new(fixtures::catalog(&specs));
        Show { specs, catalog, ledger, form, tally: Tally::default(), printer: Printer::start(paper.clone()) }
    }

    #[tokio::test]
    async fn what_is_in_the_feed_when_it_stops_is_still_shown_and_counted() {
        let table = Form::Table { header: "barline".into(), board: Board::new(1), rate: Rate::default() };
        for form in [Form::Lines(Lines::default()), table] {
            let (feed, paper, stop) = (broadcast::Sender::new(8), Paper::default(), CancellationToken::new());
            let receiver = feed.subscribe();
            feed.send(Arc::new(fixtures::bars(1, SpecId(0)))).unwrap();
            feed.send(Arc::new(fixtures::bars(30, SpecId(0)))).unwrap();
            stop.cancel();
            let tally = show(form, &paper).run(receiver, stop).await;
            assert_eq!(tally, Tally { bars: 31, amendments: 0, missed_batches: 0 });
            let text = paper.text();
            assert!(text.contains("dev002") && text.contains("… "), "{text}");
        }
    }

    #[tokio::test]
    async fn batches_too_fast_to_be_seen_are_told() {
        let (feed, paper, stop) = (broadcast::Sender::new(2), Paper::default(), CancellationToken::new());
        let receiver = feed.subscribe();
        for _ in 0..10 {
            feed.send(Arc::new(fixtures::bars(1, SpecId(0)))).unwrap();
        }
        stop.cancel();
        let tally = show(Form::Lines(Lines::default()), &paper).run(receiver, stop).await;
        assert_eq!((tally.bars, tally.missed_batches), (2, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_a_second_has_twenty_lines_and_a_number() {
        let (feed, paper, stop) = (broadcast::Sender::new(8), Paper::default(), CancellationToken::new());
        let receiver = feed.subscribe();
        let bars = Arc::new(fixtures::bars(50, SpecId(0)));
        let sender = async {
            for _ in 0..2 {
                sleep(BEAT / 2).await;
                feed.send(bars.clone()).unwrap();
                sleep(BEAT / 2).await;
            }
            sleep(BEAT).await;
            stop.cancel();
        };
        let (_, ()) = tokio::join!(show(Form::Lines(Lines::default()), &paper).run(receiver, stop.clone()), sender);
        // The printer's thread does not live in the paused time.
        while Arc::strong_count(&paper.0) > 1 {
            std::thread::yield_now();
        }
        let text = paper.text();
        assert_eq!(text.lines().filter(|line| *line == "… 30 more bars").count(), 2, "{text}");
        assert_eq!(text.lines().count(), 2 * 21);
    }
}
