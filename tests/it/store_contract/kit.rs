//! What the store's tests share: both sides of the port, two specs, and short ways to write and read.

use std::ops::ControlFlow;
use std::sync::Arc;

use barline::codec::block;
use barline::model::time::{DAY, HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::spec::*;
use barline::store::*;
use bytes::Bytes;

pub const A: SpecId = SpecId(0);
pub const B: SpecId = SpecId(1);
/// A moment far from zero.
pub const NOW: TimeNs = 1_700_000_000 * SECOND;
pub const PLENTY: Budget = Budget { ticks: u64::MAX, bars: u64::MAX, on_full: OnFull::Expire };

/// One side of the port, and how to come back to it.
pub enum Side {
    Disk(tempfile::TempDir),
    Memory(Arc<Memory>),
}

impl Side {
    pub fn open(&self) -> Arc<dyn Kv> {
        match self {
            Self::Disk(dir) => Arc::new(Fjall::open(dir.path(), 8 << 20).unwrap()),
            Self::Memory(memory) => memory.clone(),
        }
    }

    pub fn store(&self) -> Store {
        Store::open(self.open(), &specs(), keep).unwrap()
    }
}

pub fn on_both(test: impl Fn(&Side)) {
    test(&Side::Memory(Arc::new(Memory::new())));
    test(&Side::Disk(directory()));
}

/// In memory where the system has such a place: what a sync does is not what is tested here.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn spec(name: &str) -> Spec {
    let field = |name: &str| Field { name: name.into(), ty: FieldType::Int64 };
    let granularity = |name: &str, length| Granularity { name: name.into(), length };
    Spec {
        id: A,
        name: name.into(),
        precision: 1,
        dimensions: Vec::new(),
        unknown_dimensions: UnknownDimensions::Accept,
        fields: vec![field("price"), field("quantity")],
        metrics: Vec::new(),
        accumulators: vec![accumulator(AccumulatorKind::Max, 0), accumulator(AccumulatorKind::Count, 1)],
        granularities: vec![granularity("1s", SECOND), granularity("1m", MINUTE)],
        window: WindowRules { wait: 0, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
        retention: Retention { ticks: 2 * HOUR, bars: DAY },
        cardinality: Cardinality { limit: 1_000, overflow: CardinalityOverflow::Reject },
        kafka: None,
    }
}

pub fn accumulator(kind: AccumulatorKind, field: usize) -> Accumulator {
    Accumulator { kind, field, ty: FieldType::Int64 }
}

pub fn specs() -> Specs {
    Specs::new(vec![spec("a"), spec("b")])
}

/// One word per accumulator: what both have is kept, the rest is 0.
pub fn keep(from: &[Accumulator], to: &[Accumulator], state: &[u64]) -> Vec<u64> {
    to.iter().map(|to| from.iter().position(|from| from == to).map_or(0, |at| state[at])).collect()
}

pub fn bar(series: u32, start: TimeNs, ticks: u64) -> BarHead {
    let (first, last) = (start + 5, start + 900);
    BarHead { series: SeriesId(series), start, first, last, ticks, covers: 7, ..BarHead::default() }
}

pub fn put_bars(store: &Store, spec: SpecId, bars: impl IntoIterator<Item = BarHead>) {
    let mut batch = store.batch();
    bars.into_iter().for_each(|head| batch.put_bar(spec, &head, &[head.ticks, 1]));
    batch.commit(Durability::Process).unwrap();
}

pub fn scan(store: &Store, scan: BarScan) -> Vec<BarHead> {
    let mut found = Vec::new();
    let visit = &mut |head: &BarHead, state: &[u64]| {
        assert_eq!(state, [head.ticks, 1]);
        found.push(*head);
        ControlFlow::Continue(())
    };
    store.scan_bars(&scan, visit).unwrap();
    found
}

pub fn all_bars(store: &Store, spec: SpecId) -> Vec<BarHead> {
    scan(store, BarScan { spec, granularity: 0, series: None, from: i64::MIN, to: i64::MAX })
}

/// Ticks of the given series and times, as a journal block.
pub fn ticks(spec: SpecId, offset: u64, received_at: TimeNs, rows: &[(u32, TimeNs)]) -> (BlockFacts, Bytes) {
    let mut batch = TickBatch::new(spec, 2);
    for (series, time) in rows {
        batch.series.push(*series);
        batch.timestamps.push(*time);
        batch.fields.iter_mut().for_each(|field| field.bits.push(u64::from(*series)));
    }
    let times = || rows.iter().map(|(_, time)| *time);
    let (min_time, max_time) = (times().min().unwrap(), times().max().unwrap());
    let facts = BlockFacts { offset, rows: rows.len() as u32, min_time, max_time, received_at };
    (facts, block::encode(&batch, specs().get(spec), offset, received_at).into())
}

pub fn append(store: &Store, spec: SpecId, offset: u64, received_at: TimeNs, rows: &[(u32, TimeNs)]) {
    let (facts, block) = ticks(spec, offset, received_at, rows);
    let mut batch = store.batch();
    batch.append(spec, facts, block);
    batch.commit(Durability::Synced).unwrap();
}

pub fn offsets(store: &Store, scan: TickScan) -> Vec<u64> {
    let mut found = Vec::new();
    let visit = &mut |block: &block::Block, _: std::ops::Range<TimeNs>| {
        found.push(block.header.offset);
        ControlFlow::Continue(())
    };
    store.scan_ticks(&scan, visit).unwrap();
    found
}

pub fn all_ticks(spec: SpecId) -> TickScan {
    TickScan { spec, series: None, from: i64::MIN, to: i64::MAX, side: false }
}

pub fn replay(store: &Store, from: u64) -> Vec<(u64, SpecId)> {
    let mut found = Vec::new();
    store
        .journal_from(from, &mut |offset, spec, block| {
            assert_eq!(block.header.offset, offset);
            found.push((offset, spec));
        })
        .unwrap();
    found
}

pub fn put(space: &str, key: &'static [u8], value: &'static [u8]) -> Op {
    Op::Put { space: space.into(), key: Bytes::from_static(key), value: Bytes::from_static(value) }
}

/// A checkpoint of one of two instances.
pub fn checkpoint(instance: u16, replay_from: u64) -> Checkpoint {
    Checkpoint { instance, instances: 2, replay_from, cascade_from: TimeNs::MAX, late: vec![3, 0] }
}
