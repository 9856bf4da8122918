//! A backup taken at any moment of a run is what the store was at that moment, and a damaged one is not restored.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use barline::model::TimeNs;
use barline::model::time::SECOND;
use barline::runtime::Placement;
use barline::runtime::load_catalog;
use barline::runtime::sim::simulate;
use barline::store::{Fjall, Kv, Memory, Store};
use barline::tools::replay::{Grounds, HELD_BYTES};
use barline::tools::{Replay, ToolError, backup, replay, restore};
use barline::window::state;

use super::naive::Tick;
use super::scripted::{assemble, cascading_specs, plan, seams};
use super::store_contract::kit::directory;

const START: TimeNs = 1_750_000_000 * SECOND;

fn go_on(_: barline::tools::Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Ticks at random times of 20 seconds.
fn script(random: &mut fastrand::Rng) -> super::scripted::Script {
    let mut time = START;
    let mut batch = |_| {
        time += SECOND / 5;
        let tick = |_| Tick {
            series: random.u32(0..4),
            time: time - random.i64(0..3 * SECOND),
            sequence: 0,
            price: random.i64(1..99),
            quantity: 1,
        };
        (Duration::from_millis(200), (0..20).map(tick).collect())
    };
    (0..100).map(&mut batch).collect()
}

#[test]
fn a_backup_taken_under_load_is_one_moment_of_the_run() {
    let dir = directory();
    let mut random = fastrand::Rng::with_seed(3);
    let script = script(&mut random);
    let memory = Arc::new(Memory::new());
    let taken = Arc::new(Mutex::new(Vec::new()));
    simulate(START, async |clock| {
        let seams = seams(memory.clone(), clock, None);
        let launched =
            assemble(seams, plan("scaled.yaml", &[]), cascading_specs(), 4, script).launch(Placement::SameThread);
        for number in 0..4 {
            tokio::time::sleep(Duration::from_millis(random.u64(3_000..5_500))).await;
            let to = dir.path().join(format!("b{number}"));
            taken.lock().unwrap().push(backup::backup(&*memory, &to, &mut go_on).unwrap());
        }
        assert!(launched.wait().await.is_clean());
    });
    for (number, report) in taken.lock().unwrap().iter().enumerate() {
        let data = dir.path().join(format!("r{number}"));
        let restored = restore::restore(Path::new(&report.directory), &data, &mut go_on).unwrap();
        assert_eq!((restored.pairs, restored.journal_end), (report.pairs, report.journal_end));
        assert!(restored.found.is_sound(), "{:?}", restored.found);
        let specs = cascading_specs();
        let kv: Arc<dyn Kv> = Arc::new(Fjall::open(&data, 8 << 20).unwrap());
        let store = Store::open(kv, &specs, state::convert).unwrap();
        assert_eq!(store.journal_end(), report.journal_end);
        let catalog = load_catalog(&store, &specs).unwrap();
        let spec = barline::spec::Spec::clone(specs.by_name("market_ticks").unwrap());
        let (from, to) = (TimeNs::MIN, TimeNs::MAX);
        let job = Replay { spec, ticks_of: None, from, to, examples: 9, held_bytes: HELD_BYTES, install: None };
        let grounds = Grounds { specs: &specs, catalog: &catalog, store: &store, now: START };
        let told = replay(grounds, &job, &mut go_on).unwrap();
        assert!(told.is_equal() && told.granularities[0].same > 0, "backup {number}: {told:?}");
    }
}

/// A small backup.
fn taken(dir: &Path) -> std::path::PathBuf {
    let memory = Memory::new();
    let specs = cascading_specs();
    let store = Store::open(Arc::new(Memory::new()), &specs, state::convert).unwrap();
    drop(store);
    let ops = (0..500u32).map(|n| {
        let key = bytes::Bytes::copy_from_slice(&n.to_be_bytes());
        let value = barline::store::value::frame(&key, &[7; 2_000]);
        barline::store::Op::Put { space: "ticks/a/8000000000000000-64".into(), key, value }
    });
    memory.commit(ops.collect(), barline::store::Durability::Process).unwrap();
    let to = dir.join("backup");
    backup::backup(&memory, &to, &mut go_on).unwrap();
    to
}

fn refused(result: Result<restore::RestoreReport, ToolError>) -> String {
    match result {
        Err(ToolError::Refused(message)) => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn directories_that_are_not_empty_are_left_alone() {
    let dir = directory();
    let backup_dir = taken(dir.path());
    let again = backup::backup(&Memory::new(), &backup_dir, &mut go_on);
    assert!(matches!(again, Err(ToolError::Refused(_))), "{again:?}");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("precious"), "x").unwrap();
    assert!(refused(restore::restore(&backup_dir, &data, &mut go_on)).contains("is not empty"));
    assert_eq!(std::fs::read_to_string(data.join("precious")).unwrap(), "x");
}

#[test]
fn a_backup_that_is_not_whole_or_was_changed_is_not_restored() {
    let dir = directory();
    let (backup_dir, data) = (taken(dir.path()), dir.path().join("data"));
    let manifest = backup_dir.join("MANIFEST.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    assert!(refused(restore::restore(&backup_dir, &data, &mut go_on)).contains("did not come to its end"));
    std::fs::write(&manifest, text.replace("\"pairs\": 500", "\"pairs\": 501")).unwrap();
    assert!(refused(restore::restore(&backup_dir, &data, &mut go_on)).contains("use another backup"));
    assert!(!data.exists());
    std::fs::write(&manifest, "{").unwrap();
    assert!(refused(restore::restore(&backup_dir, &data, &mut go_on)).contains("is damaged"));
    std::fs::write(&manifest, text).unwrap();
    assert_eq!(restore::restore(&backup_dir, &data, &mut go_on).unwrap().pairs, 500);
}

#[test]
fn a_backup_that_is_stopped_leaves_no_manifest() {
    let dir = directory();
    let to = dir.path().join("backup");
    let memory = Memory::new();
    let key = bytes::Bytes::from_static(b"k");
    let value = bytes::Bytes::from_static(b"v");
    memory
        .commit(vec![barline::store::Op::Put { space: "x".into(), key, value }], barline::store::Durability::Process)
        .unwrap();
    let stopped = backup::backup(&memory, &to, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ToolError::Stopped)), "{stopped:?}");
    assert!(!to.join("MANIFEST.json").exists());
}

#[test]
fn cursors_refused_bars_and_the_inbox_come_back_with_a_backup() {
    let dir = directory();
    let (memory, specs) = (Arc::new(Memory::new()), cascading_specs());
    let store = Store::open(memory.clone(), &specs, state::convert).unwrap();
    super::verify::with_a_sink_and_a_source(&store, &specs);
    let (to, data) = (dir.path().join("backup"), dir.path().join("data"));
    backup::backup(&*memory, &to, &mut go_on).unwrap();
    let restored = restore::restore(&to, &data, &mut go_on).unwrap();
    let kinds: Vec<_> = restored.found.kinds.iter().map(|count| (count.kind.as_str(), count.values)).collect();
    for kind in ["cursor", "refused", "inbox"] {
        assert!(kinds.contains(&(kind, 1)), "{kind}: {kinds:?}");
    }
    let back = Store::open(Arc::new(Fjall::open(&data, 8 << 20).unwrap()), &specs, state::convert).unwrap();
    assert_eq!(back.refused().unwrap(), store.refused().unwrap());
    let inbox = |store: &Store| {
        let mut found = Vec::new();
        store.load_inbox("ticks", &mut |number, payload| found.push((number, payload))).unwrap();
        found
    };
    assert_eq!((inbox(&back).len(), inbox(&back)), (1, inbox(&store)));
}
