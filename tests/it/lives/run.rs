//! Several lives of the whole topology over one simulated disk: how each begins, what breaks, how it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use barline::app::{App, Seams};
use barline::codec::Interner;
use barline::model::time::{HOUR, MILLISECOND, SECOND};
use barline::model::{BarBatch, LedgerSnapshot, SeriesId, SeriesKey, TimeNs};
use barline::runtime::sim::{Rates, SeededChaos, simulate};
use barline::runtime::{Built, Chaos, Clock, Placement, Steady};
use barline::spec::Specs;
use barline::store::{Crash, Faults, Kv, Mount, Order, SimDisk};
use barline::topology::Plan;

use super::scale::change;
use super::script::Sending;
use super::see::{SetBack, ticks, watch};
use crate::naive::{self, Bars, Tick};
use crate::scripted::{cascading_specs, plan};
use crate::sim::Stages;

pub const START: TimeNs = 1_750_000_000 * SECOND;

/// What distinguishes a variant of the whole from the one that is shipped.
#[derive(Clone, Copy)]
pub struct Variant {
    pub order: Order,
    /// Whether the machine may lose power, or only the process die.
    pub power: bool,
    /// The only thing that goes wrong, in the first of two lives; otherwise lives and faults are drawn.
    pub only: Option<Only>,
    /// Puts something between the process and its disk.
    pub wrap: fn(Arc<Mount>) -> Arc<dyn Kv>,
    /// Puts something in place of stages; the context is there once they run.
    pub stages: Stages,
    /// The specs.
    pub specs: fn() -> Specs,
}

impl Variant {
    pub const SHIPPED: Self = Self {
        order: Order::Log,
        power: true,
        only: None,
        wrap: |mount| mount,
        stages: |_, _| Vec::new(),
        specs: || SPECS.clone(),
    };
}

/// One thing that goes wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// It is full at this commit.
    Full(u64),
    /// The sync of this commit fails.
    Sync(u64),
    /// This read fails.
    Read(u64),
    /// The process dies at this commit: whether it is written by then.
    Dies(u64, bool),
}

/// Read once: a third of a short life is reading YAML.
pub static SPECS: LazyLock<Specs> = LazyLock::new(cascading_specs);

/// `scaled.yaml` with so many aggregators, to begin with where their number `changes`, and this kind of sync, each read
/// once.
fn plan_of(instances: u32, changes: bool, sync: &'static str) -> Plan {
    static PLANS: Mutex<BTreeMap<(u32, bool, &str), Plan>> = Mutex::new(BTreeMap::new());
    let count = if changes { format!("{{min: {instances}, max: 5}}") } else { instances.to_string() };
    let read = || plan("scaled.yaml", &[&format!("aggregate.instances={count}"), &format!("journal.sync={sync}")]);
    PLANS.lock().unwrap().entry((instances, changes, sync)).or_insert_with(read).clone()
}

/// How a life is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Crash(Crash),
    Orderly,
}

/// A bar as it was shown to a subscriber: series, granularity, start and revision, and what was in it.
type Shown = BTreeMap<(u32, u8, TimeNs, u32), Vec<u64>>;

/// Everything that is known when the last life is over.
pub struct Outcome {
    pub sending: Arc<Sending>,
    /// The ticks in the journal, by block, in order of arrival.
    pub journal: Vec<Tick>,
    /// The late ticks kept aside, in the same order.
    pub aside: Vec<Tick>,
    /// By granularity.
    pub stored: Vec<Bars>,
    /// The ledger of the last life.
    pub ledger: LedgerSnapshot,
    /// What went wrong on the way.
    pub complaints: Vec<String>,
    /// Commits of the first life.
    pub commits: u64,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    variant: Variant,
    disk: Arc<SimDisk>,
    sending: Arc<Sending>,
    sync: &'static str,
    now: TimeNs,
    complaints: Vec<String>,
    shown: Shown,
    /// Whether power was ever lost.
    lost_power: bool,
    commits: u64,
}

/// Runs all lives of `seed`.
pub fn run(seed: u64, variant: Variant) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let sending = Sending::draw(&mut random, START);
    let sync = ["always", "always", "interval", "never"][random.usize(0..4)];
    let disk = SimDisk::new(seed, variant.order);
    let (complaints, shown) = (Vec::new(), Shown::new());
    let (now, lost_power, commits) = (START, false, 0);
    let mut world = World { seed, random, variant, disk, sending, sync, now, complaints, shown, lost_power, commits };
    let lives = if variant.only.is_some() { 1 } else { world.random.usize(1..6) };
    for life in 0..lives {
        let end = match world.random.u8(0..10) {
            0 => End::Orderly,
            1..5 if variant.power => End::Crash(Crash::Power),
            _ => End::Crash(Crash::Process),
        };
        world.live(life, Some(end));
    }
    world.live(lives, None).unwrap_or_else(|| panic!("seed {seed}: the last life gave nothing"))
}

impl World {
    /// One life; the last one, without `end`, plays the script to its end and tells what is there.
    fn live(&mut self, life: usize, end: Option<End>) -> Option<Outcome> {
        let last = end.is_none();
        let length = match self.variant.only {
            Some(_) => self.sending.length() / 2,
            None => Duration::from_micros(self.random.u64(0..2_500_000)),
        };
        let faults = if last { Faults::default() } else { self.faults() };
        let mount = self.disk.mount(faults);
        let kv = (self.variant.wrap)(mount.clone());
        if self.random.u8(0..5) == 0 {
            self.now -= self.random.i64(0..HOUR);
        }
        let seed = self.seed.wrapping_mul(31).wrapping_add(life as u64);
        simulate(self.now, async |raw| {
            let set_back =
                SetBack { at: self.now + self.random.i64(0..20 * SECOND), by: self.step_back(), clock: raw.clone() };
            let clock: Arc<dyn Clock> = Arc::new(Steady::new(set_back));
            let began = raw.now();
            let rates = Rates { stall: 0.05, longest: Duration::from_millis(200), panic: 0.01 };
            let chaos: Option<Arc<dyn Chaos>> = Some(Arc::new(SeededChaos::new(seed, rates)));
            let app = match self.assemble(kv, clock, chaos) {
                Ok(app) => app,
                // A read failed, or the process died while it started.
                Err(error) => {
                    if last {
                        self.complaints.push(format!("life {life} did not start: {error}"));
                    }
                    self.crash(end.unwrap_or(End::Orderly));
                    return None;
                }
            };
            let context = app.context.clone();
            let launched = app.launch(Placement::SameThread);
            let seen = watch(&launched);
            if let Some(scaling) = launched.context.scaling.clone() {
                tokio::task::spawn_local(change(scaling, seed));
            }
            let stopping = launched.running.stopping().clone();
            let mut waiting = std::pin::pin!(launched.wait());
            let mut report = None;
            if last {
                report = Some(waiting.await);
            } else {
                tokio::select! {
                    biased;
                    ended = &mut waiting => report = Some(ended),
                    () = tokio::time::sleep(length) => {}
                }
                if report.is_none() && end == Some(End::Orderly) {
                    stopping.cancel();
                    report = Some(waiting.await);
                }
            }
            self.now = raw.now();
            self.note(&seen.lock().unwrap());
            let crashed = report.as_ref().is_none_or(|report| !report.is_clean());
            if mount.has_failed() && report.as_ref().is_some_and(|report| report.is_clean()) {
                self.complaints.push(format!("life {life} ended in order although its disk had failed"));
            }
            self.commits = if life == 0 { mount.commits() } else { self.commits };
            if !last {
                let end = end.filter(|_| crashed).unwrap_or(End::Orderly);
                self.crash(end);
                return None;
            }
            if let Some(report) = report.filter(|_| crashed) {
                self.complaints.push(format!("the last life: {:?}", report.exits));
            }
            let patience = self.sending.length() + Duration::from_secs(60);
            if self.now - began > patience.as_nanos() as TimeNs {
                self.complaints.push(format!("the last life took {} s", (self.now - began) / SECOND));
            }
            Some(Outcome {
                sending: self.sending.clone(),
                journal: ticks(&context, false),
                aside: ticks(&context, true),
                stored: [0, 1, 2].map(|level| naive::stored(&context.store, &context.specs, level)).to_vec(),
                ledger: context.ledger.spec(naive::spec_id(&context.specs)).snapshot(),
                complaints: std::mem::take(&mut self.complaints),
                commits: self.commits,
            })
        })
    }

    /// What goes wrong with the disk in one life.
    fn faults(&mut self) -> Faults {
        let none = Faults::default();
        match self.variant.only {
            Some(Only::Full(at)) => return Faults { full: vec![at], ..none },
            Some(Only::Sync(at)) => return Faults { sync: Some(at), ..none },
            Some(Only::Read(at)) => return Faults { reads: vec![at], ..none },
            Some(Only::Dies(at, written)) => return Faults { dies: Some((at, written)), ..none },
            None => {}
        }
        let random = &mut self.random;
        let one_in = |random: &mut fastrand::Rng, n: u8| random.u8(0..n) == 0;
        let mut faults = none;
        if one_in(random, 4) {
            faults.full = (0..random.usize(1..4)).map(|_| random.u64(1..40)).collect();
        }
        if one_in(random, 6) {
            faults.reads = vec![random.u64(1..200)];
        }
        if one_in(random, 8) {
            faults.sync = Some(random.u64(1..40));
        }
        if one_in(random, 3) {
            faults.dies = Some((random.u64(1..60), random.bool()));
        }
        faults
    }

    fn step_back(&mut self) -> TimeNs {
        if self.random.u8(0..5) == 0 { self.random.i64(0..HOUR) } else { 0 }
    }

    fn assemble(
        &mut self,
        kv: Arc<dyn Kv>,
        clock: Arc<dyn Clock>,
        chaos: Option<Arc<dyn Chaos>>,
    ) -> Result<App, barline::app::StartError> {
        let (specs, plan) = ((self.variant.specs)(), plan_of(self.random.u32(1..6), self.random.bool(), self.sync));
        let spec = naive::spec_id(&specs);
        let context = Arc::new(OnceLock::new());
        let mut sources = (self.variant.stages)(&plan, &context);
        let (sending, shared) = (self.sending.clone(), context.clone());
        let source = move |_| Ok(sending.source(shared.clone(), spec));
        sources.push(("ingest".into(), Built::Source(Box::new(source))));
        let app = App::over(
            Seams { kv, clock, brokers: Arc::new(barline::broker::MemoryBroker::default()), chaos, sources },
            plan,
            specs,
        )?;
        let _ = context.set(app.context.clone());
        for id in 0..self.sending.series {
            let key = SeriesKey::new([("symbol", format!("S{id}").as_str())]).unwrap();
            assert_eq!(app.context.catalog.intern(spec, &key).ok(), Some(SeriesId(id)), "seed {}", self.seed);
        }
        Ok(app)
    }

    /// The process is no more, or the machine off; what was promised only for the former is then promised no longer.
    fn crash(&mut self, end: End) {
        self.disk.crash(if end == End::Crash(Crash::Power) { Crash::Power } else { Crash::Process });
        if end == End::Crash(Crash::Power) {
            self.lost_power = true;
            if self.sync != "always" {
                self.sending.acknowledged.lock().unwrap().clear();
            }
        }
        self.now += self.random.i64(0..10 * SECOND) + MILLISECOND;
    }

    /// Compares what a life has shown with what earlier ones did.
    fn note(&mut self, seen: &[Arc<BarBatch>]) {
        for (batch, head) in seen.iter().flat_map(|batch| batch.heads.iter().map(move |head| (batch, head))) {
            let mut content = batch.state(head).to_vec();
            content.extend([head.ticks, head.first as u64, head.last as u64]);
            let id = (head.series.0, head.granularity, head.start, head.revision);
            let before = self.shown.insert(id, content.clone());
            // Power may take with it a revision that was shown, for bars are not synced: the next may be made of more.
            if !self.lost_power && before.is_some_and(|before| before != content) {
                self.complaints.push(format!("{id:?} was shown with two contents"));
            }
        }
    }
}
