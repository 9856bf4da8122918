//! Whatever byte is flipped is found; what the journal holds is brought back, and the rest stays as it was.

use std::ops::ControlFlow;
use std::sync::Arc;

use barline::catalog::Catalog;
use barline::model::time::SECOND;
use barline::model::{SeriesId, TimeNs};
use barline::runtime::Placement;
use barline::runtime::load_catalog;
use barline::runtime::sim::simulate;
use barline::spec::Specs;
use barline::store::{Durability, Following, Kv, Memory, Op, Refused, Spool, Store, WhenSpent};
use barline::tools::replay::{Grounds, HELD_BYTES};
use barline::tools::{Replay, ReplayReport, VerifyReport, replay, verify};
use barline::window::state;
use bytes::Bytes;

use super::naive::{self, Tick};
use super::scripted::{assemble, cascading_specs, plan, seams};

const START: TimeNs = 1_750_000_000 * SECOND;

/// A pair and where it is.
type Pair = (String, Bytes, Bytes);

/// What a small run leaves: ticks of three series over half a minute, some late.
fn after_a_run() -> (Arc<Memory>, Vec<Tick>) {
    let mut random = fastrand::Rng::with_seed(11);
    let batch = |at: i64| {
        let tick = |_| Tick {
            series: random.u32(0..3),
            time: START + at * SECOND - random.i64(0..4 * SECOND),
            sequence: 0,
            price: random.i64(1..99),
            quantity: random.i64(1..9),
        };
        (std::time::Duration::from_secs(1), (0..12).map(tick).collect::<Vec<_>>())
    };
    let script: Vec<_> = (0..30).map(batch).collect();
    let ticks = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
    let memory = Arc::new(Memory::new());
    simulate(START, async |clock| {
        let seams = seams(memory.clone(), clock, None);
        let app = assemble(seams, plan("scaled.yaml", &[]), cascading_specs(), 3, script);
        assert!(app.launch(Placement::SameThread).wait().await.is_clean());
    });
    (memory, ticks)
}

fn pairs(kv: &dyn Kv) -> Vec<Pair> {
    let mut found = Vec::new();
    for space in kv.spaces("") {
        kv.scan(&space, &[], None, &mut |key, value| {
            found.push((space.clone(), Bytes::copy_from_slice(key), value));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    found
}

fn put(kv: &dyn Kv, (space, key, value): Pair) {
    kv.commit(vec![Op::Put { space: space.into(), key, value }], Durability::Process).unwrap();
}

fn flipped((space, key, value): &Pair, random: &mut fastrand::Rng) -> Pair {
    let mut bytes = value.to_vec();
    bytes[random.usize(0..value.len())] ^= 1 << random.u8(0..8);
    (space.clone(), key.clone(), bytes.into())
}

fn look(kv: &dyn Kv) -> VerifyReport {
    verify::look(kv, &mut |_| ControlFlow::Continue(())).unwrap().report()
}

/// A store opened anew, as a command without a running process does.
struct Opened {
    specs: Specs,
    catalog: Catalog,
    store: Store,
}

impl Opened {
    fn over(kv: Arc<dyn Kv>) -> Self {
        let specs = cascading_specs();
        let store = Store::open(kv, &specs, state::convert).unwrap();
        let catalog = load_catalog(&store, &specs).unwrap();
        Self { specs, catalog, store }
    }

    fn grounds(&self) -> Grounds<'_> {
        Grounds { specs: &self.specs, catalog: &self.catalog, store: &self.store, now: START }
    }

    fn replay(&self) -> ReplayReport {
        let spec = barline::spec::Spec::clone(self.specs.by_name("market_ticks").unwrap());
        let (from, to) = (TimeNs::MIN, TimeNs::MAX);
        let job = Replay { spec, ticks_of: None, from, to, examples: 9, held_bytes: HELD_BYTES, install: None };
        replay(self.grounds(), &job, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    fn assert_naive(&self, ticks: &[Tick]) {
        for (granularity, seconds) in [(0, 1), (1, 5), (2, 20)] {
            let stored = naive::stored(&self.store, &self.specs, granularity);
            assert_eq!(stored, naive::bars(ticks, seconds * SECOND), "granularity {granularity}");
        }
    }
}

fn repair(kv: &Arc<Memory>) -> (Opened, VerifyReport) {
    let watch = &mut |_: barline::tools::Step<'_>| ControlFlow::Continue(());
    let found = verify::look(&**kv, watch).unwrap();
    let opened = Opened::over(kv.clone());
    let report = verify::mend(opened.grounds(), found, watch).unwrap();
    (opened, report)
}

#[test]
fn any_flipped_bit_of_any_value_is_found_and_nothing_else() {
    let (memory, _) = after_a_run();
    assert!(look(&*memory).is_sound(), "{:?}", look(&*memory));
    let mut random = fastrand::Rng::with_seed(5);
    let all = pairs(&*memory);
    let kinds: std::collections::BTreeSet<_> = all.iter().map(|pair| pair.0.split('/').next().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["bars", "contents", "meta", "outbox", "series", "ticks"]);
    for pair in &all {
        put(&*memory, flipped(pair, &mut random));
        let report = look(&*memory);
        // The record of layouts is needed to read bars; without it they are not judged by their shape.
        assert_eq!((report.left, report.damages.len()), (1, 1), "{pair:?}: {report:?}");
        assert_eq!(report.damages[0].space, pair.0, "{report:?}");
        put(&*memory, pair.clone());
    }
    assert!(look(&*memory).is_sound());
}

#[test]
fn values_under_a_wrong_key_and_series_without_a_name_are_found() {
    let (memory, _) = after_a_run();
    let all = pairs(&*memory);
    let named = all.iter().find(|pair| pair.0.starts_with("series/")).unwrap();
    let gone = Op::Delete { space: named.0.as_str().into(), key: named.1.clone() };
    memory.commit(vec![gone], Durability::Process).unwrap();
    let report = look(&*memory);
    assert_eq!((report.left, report.damages[0].kind.as_str()), (1, "series"), "{report:?}");
    put(&*memory, named.clone());
    let mut bars = all.iter().filter(|pair| pair.0.starts_with("bars/"));
    let (one, other) = (bars.next().unwrap(), bars.next().unwrap());
    put(&*memory, (one.0.clone(), one.1.clone(), other.2.clone()));
    assert_eq!(look(&*memory).left, 1);
}

#[test]
fn damaged_bars_are_brought_back_exactly() {
    let (memory, ticks) = after_a_run();
    let mut random = fastrand::Rng::with_seed(6);
    let all = pairs(&*memory);
    let mut bars: Vec<_> = all.iter().filter(|pair| pair.0.starts_with("bars/")).collect();
    random.shuffle(&mut bars);
    bars[..10].iter().for_each(|pair| put(&*memory, flipped(pair, &mut random)));
    let removed = Op::Delete { space: bars[10].0.as_str().into(), key: bars[10].1.clone() };
    memory.commit(vec![removed], Durability::Process).unwrap();
    let (opened, report) = repair(&memory);
    assert_eq!((report.left, report.restored), (0, 1), "{report:?}");
    assert!(report.damages.iter().all(|damage| damage.repaired), "{report:?}");
    opened.assert_naive(&ticks);
    assert!(look(&*memory).is_sound());
    assert!(opened.replay().is_equal());
}

#[test]
fn a_damaged_block_costs_its_ticks_and_no_bar() {
    let (memory, ticks) = after_a_run();
    let mut random = fastrand::Rng::with_seed(7);
    let all = pairs(&*memory);
    let block = all.iter().find(|pair| pair.0.starts_with("ticks/")).unwrap();
    put(&*memory, flipped(block, &mut random));
    let (opened, report) = repair(&memory);
    assert_eq!(report.left, 1, "{report:?}");
    assert!(report.damages[0].outcome.contains("12 ticks are lost"), "{report:?}");
    opened.assert_naive(&ticks);
    // What is missing from the journal is no reason to touch a bar.
    let told = opened.replay();
    assert!(told.is_equal() && told.granularities[0].incomplete > 0, "{told:?}");
}

#[test]
fn a_damaged_series_keeps_its_number_and_its_bars() {
    let (memory, _) = after_a_run();
    let mut random = fastrand::Rng::with_seed(8);
    let all = pairs(&*memory);
    let (at, series) = all.iter().enumerate().find(|(_, pair)| pair.0 == "series/market_ticks").unwrap();
    put(&*memory, flipped(series, &mut random));
    let (opened, report) = repair(&memory);
    assert_eq!(report.left, 1, "{report:?}");
    let spec = naive::spec_id(&opened.specs);
    assert_eq!(opened.catalog.key(spec, SeriesId(0)).to_string(), "lost_series=0", "{at}");
    assert!(opened.replay().is_equal());
    assert!(look(&*memory).is_sound());
}

#[test]
fn no_damaged_record_keeps_a_store_from_opening_and_each_is_made_good() {
    let (memory, ticks) = after_a_run();
    let mut random = fastrand::Rng::with_seed(9);
    let before = Opened::over(memory.clone());
    let spec = naive::spec_id(&before.specs);
    before
        .store
        .reap(
            START + 60 * SECOND,
            &barline::store::Budget { ticks: u64::MAX, bars: u64::MAX, on_full: barline::store::OnFull::Expire },
        )
        .unwrap();
    let facts = |opened: &Opened| {
        let newest: Vec<_> = (0..3).map(|granularity| opened.store.newest_start(spec, granularity)).collect();
        (opened.store.journal_end(), newest)
    };
    let expected = facts(&before);
    let records: Vec<_> = pairs(&*memory).into_iter().filter(|pair| pair.0 == "meta").collect();
    assert!(records.len() > 20, "{}", records.len());
    for record in records {
        put(&*memory, flipped(&record, &mut random));
        assert_eq!(facts(&Opened::over(memory.clone())), expected, "{record:?}");
        let (opened, _) = repair(&memory);
        opened.assert_naive(&ticks);
        assert!(look(&*memory).is_sound(), "{record:?}: {:?}", look(&*memory));
        put(&*memory, record);
    }
}

#[test]
fn bars_of_layouts_nobody_remembers_are_put_aside_and_derived_again() {
    let (memory, ticks) = after_a_run();
    let opened = Opened::over(memory.clone());
    // A bar as an earlier spec with fewer metrics might have left it: in a layout of its own.
    let spec = naive::spec_id(&opened.specs);
    let (series, start) = *naive::bars(&ticks, SECOND).first_key_value().unwrap().0;
    let (head, state) = opened.store.bar(spec, 0, SeriesId(series), start).unwrap().unwrap();
    let key = Bytes::copy_from_slice(&barline::store::keys::bar(SeriesId(series), start));
    let space = pairs(&*memory).into_iter().find(|pair| pair.0.starts_with("bars/") && pair.1 == key).unwrap().0;
    let window = format!("bars/market_ticks/{:x}/", SECOND);
    assert!(space.starts_with(&window), "{space}");
    for pair in pairs(&*memory).into_iter().filter(|pair| pair.0.starts_with("bars/market_ticks/")) {
        let payload = barline::store::value::open(&pair.1, &pair.2).unwrap();
        let mut words = Vec::new();
        let (head, _) = barline::store::bar_bytes::decode(&pair.1, &payload, &mut words).unwrap();
        let value = barline::store::bar_bytes::encode(&pair.1, &head, &words, 1);
        put(&*memory, (pair.0, pair.1, value));
    }
    put(&*memory, (space, key.clone(), barline::store::bar_bytes::encode(&key, &head, &state[..1], 0)));
    let record = pairs(&*memory).into_iter().find(|pair| pair.1 == "spec/market_ticks").unwrap();
    put(&*memory, (record.0, record.1, Bytes::from_static(b"no frame at all")));
    let (opened, report) = repair(&memory);
    assert_eq!((report.restored, report.left), (1, 0), "{report:?}");
    opened.assert_naive(&ticks);
}

/// A sink of the bars there are, and a source, have left what they leave; gives how many bars the sink has not settled.
pub fn with_a_sink_and_a_source(store: &Store, specs: &Specs) -> u64 {
    let spool = Spool { bytes: 1 << 30, age: 365 * 24 * 3600 * SECOND, when_spent: WhenSpent::DropOldest };
    let spec = naive::spec_id(specs);
    // It began when there was nothing, so it has not to send what was there when it first ran.
    let granularities = vec![true, false, false];
    let following = Following { sink: "publish".into(), spec, granularities, spool, from_earliest: false };
    let follower = store.follow(following).unwrap();
    let (topic, key, reason) = ("bars".to_owned(), "symbol=A".to_owned(), "too large".to_owned());
    let refused = Refused { position: 5, topic, key, reason, bytes: 2_000, at: START };
    store.save_follower(&follower, &[refused]).unwrap();
    let mut batch = store.batch();
    batch.put_inbox("ticks", 7, b"messages that were claimed");
    batch.commit(Durability::Process).unwrap();
    follower.counts().outstanding
}

#[test]
fn cursors_refused_bars_and_the_inbox_are_checked_by_kind_and_a_flipped_bit_in_each_is_found() {
    let (memory, ticks) = after_a_run();
    let opened = Opened::over(memory.clone());
    assert_eq!(with_a_sink_and_a_source(&opened.store, &opened.specs), 0);
    let report = look(&*memory);
    assert!(report.is_sound(), "{report:?}");
    let places = [("cursor", "meta", "cursor/"), ("refused", "meta", "refused/"), ("inbox", "inbox/ticks", "")];
    let mut random = fastrand::Rng::with_seed(12);
    for (kind, space, begins) in places {
        let values = report.kinds.iter().find(|count| count.kind == kind).map(|count| count.values);
        assert_eq!(values, Some(1), "{kind}: {report:?}");
        let all = pairs(&*memory);
        let pair = all.iter().find(|pair| pair.0 == space && pair.1.starts_with(begins.as_bytes())).unwrap();
        put(&*memory, flipped(pair, &mut random));
        let found = look(&*memory);
        assert_eq!((found.left, found.damages[0].kind.as_str()), (1, kind), "{found:?}");
        let (opened, repaired) = repair(&memory);
        // A cursor can be begun anew; of the others it is told what is lost.
        assert_eq!(repaired.left, u64::from(kind != "cursor"), "{repaired:?}");
        assert!(!repaired.damages[0].outcome.is_empty() && look(&*memory).is_sound(), "{repaired:?}");
        opened.assert_naive(&ticks);
        if kind == "cursor" {
            // Everything that is kept, rather than nothing, is sent again.
            let outstanding = with_a_sink_and_a_source(&opened.store, &opened.specs);
            let bars = naive::stored(&opened.store, &opened.specs, 0).len() as u64;
            assert!(bars > 0 && outstanding >= bars, "{outstanding} revisions of {bars} bars");
        }
        put(&*memory, pair.clone());
    }
}
