//! Taps: some of the batches that pass an instance, copied out for somebody who looks on.
//!
//! While nobody does, a batch costs one relaxed load. While somebody does, an instance copies at most a few rows of one
//! batch in so long a time, and none while the last ones wait to be read. A copy is a batch of its own: whoever looks
//! holds up no receipt, no memory and no drain of the flow.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Clock;
use super::meter::Meter;
use crate::catalog::{Catalog, Match};
use crate::model::{BarBatch, Envelope, Rows, SeriesId, SpecId, TickBatch, TickSlice, TimeNs};

/// Samples that may wait for whoever looks; further batches pass by unseen.
const AHEAD: usize = 16;

/// What somebody wants to see.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Only batches of this spec.
    pub spec: Option<SpecId>,
    /// Only rows of these series.
    pub series: Match,
    /// At most one batch of an instance in this time.
    pub every: Duration,
    /// The most rows of a batch.
    pub rows: usize,
}

/// Rows of one batch.
#[derive(Debug)]
pub struct Sample {
    /// Which instance it passed.
    pub instance: u16,
    /// When.
    pub time: TimeNs,
    /// How many rows the batch had.
    pub rows: usize,
    /// Batches of the specs asked for that passed this instance unseen since its last sample.
    pub skipped: u64,
    /// The first rows that were asked for.
    pub shown: Shown,
}

/// A few rows, in a batch of their own.
#[derive(Debug)]
pub enum Shown {
    /// Ticks.
    Ticks(TickBatch),
    /// Bars.
    Bars(BarBatch),
}

/// Where an instance can be tapped.
#[derive(Debug, Default)]
pub struct TapPoint {
    /// How many taps there are: all that is looked at while there is none.
    open: AtomicUsize,
    taps: Mutex<Vec<Tap>>,
}

/// Somebody looking at one or more instances. They are left alone again when this is dropped.
pub struct Tapping {
    points: Vec<Arc<Meter>>,
    samples: flume::Receiver<Sample>,
    wish: Arc<Wish>,
}

/// What one instance knows of somebody who looks.
struct Tap {
    instance: u16,
    wish: Arc<Wish>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    samples: flume::Sender<Sample>,
    /// When a batch may be shown next.
    due: Instant,
    skipped: u64,
    /// By spec and number: whether a series is asked for, as far as that has been found out.
    known: Vec<Vec<Option<bool>>>,
}

impl TapPoint {
    /// Shows an envelope that passes to whoever looks.
    pub fn offer(&self, envelope: &Envelope) {
        if self.open.load(Relaxed) > 0 {
            self.taps().iter_mut().for_each(|tap| tap.offer(envelope));
        }
    }

    fn add(&self, tap: Tap) {
        let mut taps = self.taps();
        taps.push(tap);
        self.open.store(taps.len(), Relaxed);
    }

    fn remove(&self, wish: &Arc<Wish>) {
        let mut taps = self.taps();
        taps.retain(|tap| !Arc::ptr_eq(&tap.wish, wish));
        self.open.store(taps.len(), Relaxed);
    }

    fn taps(&self) -> MutexGuard<'_, Vec<Tap>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tapping {
    /// Looks at these instances from now on.
    pub fn open(points: Vec<Arc<Meter>>, wish: Wish, catalog: &Arc<Catalog>, clock: &Arc<dyn Clock>) -> Self {
        let (sender, samples) = flume::bounded(AHEAD);
        let wish = Arc::new(wish);
        for meter in &points {
            meter.tap.add(Tap {
                instance: meter.instance,
                wish: wish.clone(),
                catalog: catalog.clone(),
                clock: clock.clone(),
                samples: sender.clone(),
                due: Instant::now(),
                skipped: 0,
                known: Vec::new(),
            });
        }
        Self { points, samples, wish }
    }

    /// The next sample; `None` when no instance is left that could give one.
    pub async fn next(&self) -> Option<Sample> {
        self.samples.recv_async().await.ok()
    }
}

impl Drop for Tapping {
    fn drop(&mut self) {
        self.points.iter().for_each(|meter| meter.tap.remove(&self.wish));
    }
}

impl Tap {
    fn offer(&mut self, envelope: &Envelope) {
        let spec = match envelope {
            Envelope::Ticks(slice) if !slice.is_empty() => slice.batch.spec,
            Envelope::Bars(bars) if !bars.is_empty() => bars.spec,
            _ => return,
        };
        if self.wish.spec.is_some_and(|wanted| wanted != spec) {
            return;
        }
        self.skipped += 1;
        let now = Instant::now();
        if now < self.due || self.samples.is_full() {
            return;
        }
        let Some(shown) = self.pick(envelope) else { return };
        let (instance, time, rows) = (self.instance, self.clock.now(), envelope.rows());
        let sample = Sample { instance, time, rows, skipped: self.skipped - 1, shown };
        // Where another instance was faster to fill the last place, this batch has passed unseen as well.
        if self.samples.try_send(sample).is_ok() {
            (self.due, self.skipped) = (now + self.wish.every, 0);
        }
    }

    /// Copies the first rows that are asked for, if there are any.
    fn pick(&mut self, envelope: &Envelope) -> Option<Shown> {
        let most = self.wish.rows;
        match envelope {
            Envelope::Ticks(slice) => {
                let batch = &slice.batch;
                let wanted = slice.rows().filter(|row| self.wants(batch.spec, batch.series_at(*row)));
                let rows: Vec<u32> = wanted.take(most).map(|row| row as u32).collect();
                let picked = TickSlice { batch: batch.clone(), rows: Rows::Picked(rows), offset: slice.offset };
                (!picked.is_empty()).then(|| Shown::Ticks(picked.to_batch()))
            }
            Envelope::Bars(bars) => {
                let mut picked = BarBatch::new(bars.spec);
                for head in bars.heads.iter().filter(|head| self.wants(bars.spec, head.series)).take(most) {
                    picked.push(*head, bars.state(head));
                }
                (!picked.is_empty()).then_some(Shown::Bars(picked))
            }
            Envelope::Signal(_) => None,
        }
    }

    /// Whether a series is asked for. Its dimensions are compared once.
    fn wants(&mut self, spec: SpecId, series: SeriesId) -> bool {
        let asked = &self.wish.series;
        if asked.pairs.is_empty() && !asked.is_exact {
            return true;
        }
        let (spec_at, at) = (usize::from(spec.0), series.0 as usize);
        if self.known.len() <= spec_at {
            self.known.resize_with(spec_at + 1, Vec::new);
        }
        let known = &mut self.known[spec_at];
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        *known[at].get_or_insert_with(|| asked.accepts(&self.catalog.key(spec, series)))
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tap({:?})", self.wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::admit::Interner;
    use crate::model::time::SECOND;
    use crate::model::{BarHead, SeriesKey, Signal};
    use crate::runtime::clock::VirtualClock;
    use crate::spec::load_texts;

    const SPEC: SpecId = SpecId(0);
    const EVERY: Duration = Duration::from_millis(200);

    /// One instance, and a catalog with the symbols `A` (0) and `B` (1).
    struct Bench {
        meter: Arc<Meter>,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
    }

    impl Bench {
        fn new() -> Self {
            let text = "
series: market
dimensions: [{name: symbol}]
metrics: [{name: last, field: price, type: int64, aggregation: last}]
granularity: {rollup: 1s}
";
            let specs = load_texts([("test.yaml".to_owned(), text.to_owned())]).unwrap();
            let catalog = Arc::new(Catalog::new(&specs));
            for symbol in ["A", "B"] {
                catalog.intern(SPEC, &SeriesKey::new([("symbol", symbol)]).unwrap()).ok().unwrap();
            }
            Self { meter: Meter::new("aggregate", 3), catalog, clock: Arc::new(VirtualClock::starting_at(7 * SECOND)) }
        }

        fn tap(&self, wish: Wish) -> Tapping {
            Tapping::open(vec![self.meter.clone()], wish, &self.catalog, &self.clock)
        }

        fn offer(&self, series: &[u32]) {
            self.meter.tap.offer(&ticks(series));
        }
    }

    fn wish(series: Match) -> Wish {
        Wish { spec: None, series, every: EVERY, rows: 2 }
    }

    /// One tick of each of these series, their prices counted from 0.
    fn ticks(series: &[u32]) -> Envelope {
        let mut batch = TickBatch::new(SPEC, 1);
        for (price, series) in series.iter().enumerate() {
            batch.series.push(*series);
            batch.timestamps.push(0);
            batch.fields[0].bits.push(price as u64);
        }
        Envelope::Ticks(TickSlice::whole(Arc::new(batch), 0))
    }

    fn prices(sample: &Sample) -> Vec<u64> {
        let Shown::Ticks(batch) = &sample.shown else { panic!("no ticks: {sample:?}") };
        batch.fields[0].bits.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn one_batch_in_so_long_a_time_is_shown_and_no_more_rows_of_it_than_asked_for() {
        let bench = Bench::new();
        let tapping = bench.tap(wish(Match::default()));
        for _ in 0..3 {
            bench.offer(&[0, 1, 0, 1]);
        }
        bench.meter.tap.offer(&Envelope::Signal(Signal::End));
        bench.offer(&[]);
        tokio::time::advance(EVERY).await;
        bench.offer(&[1]);
        let (first, second) = (tapping.next().await.unwrap(), tapping.next().await.unwrap());
        assert_eq!((first.instance, first.time, first.rows, first.skipped), (3, 7 * SECOND, 4, 0));
        assert_eq!((prices(&first), prices(&second)), (vec![0, 1], vec![0]));
        assert_eq!((second.rows, second.skipped), (1, 2));
        assert!(tapping.samples.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_shows_its_series_only_and_waits_for_a_batch_that_has_it() {
        let bench = Bench::new();
        let tapping = bench.tap(wish(Match::subset([("symbol", "B")])));
        bench.offer(&[0, 0]);
        bench.offer(&[0, 1, 0, 1, 1]);
        let sample = tapping.next().await.unwrap();
        assert_eq!((prices(&sample), sample.rows, sample.skipped), (vec![1, 3], 5, 1));

        let other = bench.tap(Wish { spec: Some(SpecId(1)), ..wish(Match::default()) });
        bench.offer(&[0, 1]);
        assert!(other.samples.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bars_are_shown_with_their_states() {
        let bench = Bench::new();
        let tapping = bench.tap(wish(Match::subset([("symbol", "B")])));
        let mut bars = BarBatch::new(SPEC);
        for series in [0, 1] {
            bars.push(BarHead { series: SeriesId(series), ..BarHead::default() }, &[u64::from(series) + 40]);
        }
        bench.meter.tap.offer(&Envelope::Bars(Arc::new(bars)));
        let Shown::Bars(shown) = tapping.next().await.unwrap().shown else { panic!("no bars") };
        assert_eq!((shown.len(), shown.heads[0].series, shown.state(&shown.heads[0])), (1, SeriesId(1), &[41][..]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_holds_a_bounded_number_of_samples_and_who_leaves_none() {
        let bench = Bench::new();
        let tapping = bench.tap(wish(Match::default()));
        for _ in 0..3 * AHEAD {
            bench.offer(&[0]);
            tokio::time::advance(EVERY).await;
        }
        assert_eq!(tapping.samples.len(), AHEAD);
        for _ in 0..AHEAD {
            tapping.next().await.unwrap();
        }
        bench.offer(&[0]);
        assert_eq!(tapping.next().await.unwrap().skipped as usize, 2 * AHEAD);

        let second = bench.tap(wish(Match::default()));
        drop(tapping);
        bench.offer(&[0]);
        assert_eq!((second.samples.len(), bench.meter.tap.taps().len()), (1, 1));
        drop(second);
        assert_eq!((bench.meter.tap.open.load(Relaxed), bench.meter.tap.taps().len()), (0, 0));
    }
}
