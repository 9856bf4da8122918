//! The naive model of `market_ticks`: every bar recomputed from all ticks, with nothing but a sort.

use std::collections::BTreeMap;

use barline::model::{DurationNs, SpecId, TimeNs, Value};
use barline::store::{BarScan, Store};
use barline::window::state;

/// One tick of `market_ticks`. Its place in a list is its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    pub series: u32,
    pub time: TimeNs,
    pub sequence: u32,
    pub price: i64,
    pub quantity: i64,
}

/// One bar as people would write it down: open, high, low, close, volume, ticks, first and last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub ohlcv: [i64; 5],
    pub ticks: u64,
    pub first: TimeNs,
    pub last: TimeNs,
}

/// Bars by (series, window start).
pub type Bars = BTreeMap<(u32, TimeNs), Bar>;

/// A tick's place in its window: what `first` and `last` go by.
type Place = (TimeNs, u32, usize);

/// The bars of `ticks` over windows of `length`.
pub fn bars(ticks: &[Tick], length: DurationNs) -> Bars {
    let mut windows: BTreeMap<(u32, TimeNs), Vec<Place>> = BTreeMap::new();
    for (arrival, tick) in ticks.iter().enumerate() {
        let start = tick.time.div_euclid(length) * length;
        windows.entry((tick.series, start)).or_default().push((tick.time, tick.sequence, arrival));
    }
    let bar = |mut places: Vec<Place>| {
        places.sort_unstable();
        let tick = |place: &Place| ticks[place.2];
        let prices = || places.iter().map(|place| tick(place).price);
        let (first, last) = (places[0], places[places.len() - 1]);
        Bar {
            ohlcv: [
                tick(&first).price,
                prices().max().unwrap(),
                prices().min().unwrap(),
                tick(&last).price,
                places.iter().map(|place| tick(place).quantity).sum(),
            ],
            ticks: places.len() as u64,
            first: first.0,
            last: last.0,
        }
    };
    windows.into_iter().map(|(key, places)| (key, bar(places))).collect()
}

/// The bars of `market_ticks` in the store, of one granularity.
pub fn stored(store: &Store, specs: &barline::spec::Specs, granularity: u8) -> Bars {
    let spec = specs.by_name("market_ticks").unwrap();
    let mut found = Bars::new();
    let scan = BarScan { spec: spec.id, granularity, series: None, from: TimeNs::MIN, to: TimeNs::MAX };
    store
        .scan_bars(&scan, &mut |head, words| {
            let metrics = state::metrics(spec, head, words);
            let metric = |name: &str| {
                let index = spec.metrics.iter().position(|metric| metric.name == name).unwrap();
                metrics[index].map_or(i64::MIN, Value::to_int)
            };
            let ohlcv = ["open", "high", "low", "close", "volume"].map(metric);
            let bar = Bar { ohlcv, ticks: head.ticks, first: head.first, last: head.last };
            assert!(found.insert((head.series.0, head.start), bar).is_none(), "a bar came twice");
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// The number of `market_ticks`.
pub fn spec_id(specs: &barline::spec::Specs) -> SpecId {
    specs.by_name("market_ticks").unwrap().id
}
