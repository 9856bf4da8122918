//! Wrong orders of writing and syncing, each as small as it would slip in: the same checks must notice every one of them.

use std::sync::{Arc, Mutex, OnceLock};

use barline::model::{Envelope, TimeNs};
use barline::runtime::sim::SEED_VARIABLE;
use barline::runtime::{Built, Context, Output, Stage, StageError};
use barline::stages::journal;
use barline::store::{Durability, Hooked, Kv, KvError, Mount, Op};
use barline::topology::Plan;

use super::check::check;
use super::run::{Variant, run};

/// Seeds within which a broken variant must be noticed.
const ENOUGH: u64 = 200;

/// The first complaint about a variant, and after how many seeds it came.
fn noticed(variant: Variant, about: &str) -> (u64, String) {
    if std::env::var(SEED_VARIABLE).is_ok() {
        return (0, "one seed is replayed".into());
    }
    let wrong =
        |seed| check(&run(seed, variant)).into_iter().find(|wrong| wrong.contains(about)).map(|wrong| (seed, wrong));
    (1..=ENOUGH).find_map(wrong).unwrap_or_else(|| panic!("{ENOUGH} seeds and nothing was {about:?}"))
}

/// What a wrapped disk does on a commit: it is handed the disk, what it kept back, and the commit.
type Commit = fn(&dyn Kv, &mut Vec<Op>, Vec<Op>, Durability) -> Result<(), KvError>;

/// A disk that commits in its own way.
fn wrapped(mount: Arc<Mount>, commit: Commit) -> Arc<dyn Kv> {
    let kept = Mutex::new(Vec::new());
    let commit =
        move |disk: &dyn Kv, ops: Vec<Op>, durability| commit(disk, &mut kept.lock().unwrap(), ops, durability);
    Arc::new(Hooked::committing(mount, Box::new(commit)))
}

#[test]
fn a_sync_that_is_said_to_be_done_and_is_not_is_noticed() {
    const NEVER: Commit = |mount, _, ops, _| mount.commit(ops, Durability::Process);
    let variant = Variant { wrap: |mount| wrapped(mount, NEVER), ..Variant::SHIPPED };
    println!("{:?}", noticed(variant, "acknowledged and lost"));
}

#[test]
fn bars_committed_before_the_journal_are_noticed() {
    // Journal blocks wait until something else has been committed.
    const LATE: Commit = |mount, kept, ops, durability| {
        if ops.iter().any(|op| op.space().starts_with("ticks/")) {
            kept.extend(ops);
            return Ok(());
        }
        mount.commit(ops, durability)?;
        mount.commit(std::mem::take(kept), Durability::Synced)
    };
    let variant = Variant { wrap: |mount| wrapped(mount, LATE), power: false, ..Variant::SHIPPED };
    println!("{:?}", noticed(variant, "bars of"));
}

#[test]
fn bars_committed_apart_from_their_checkpoint_and_counts_are_noticed() {
    // Every commit in two halves: bars last.
    const HALVES: Commit = |mount, _, ops, durability| {
        let (bars, rest): (Vec<_>, Vec<_>) = ops.into_iter().partition(|op| op.space().starts_with("bars/"));
        mount.commit(rest, durability)?;
        if bars.is_empty() { Ok(()) } else { mount.commit(bars, durability) }
    };
    let variant = Variant { wrap: |mount| wrapped(mount, HALVES), ..Variant::SHIPPED };
    println!("{:?}", noticed(variant, "the ledger says"));
}

/// The journal, acknowledging before it commits.
struct Hasty(Box<dyn Stage>);

impl Stage for Hasty {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        if let Envelope::Ticks(slice) = &input
            && let Some(receipt) = &slice.batch.receipt
        {
            receipt.acknowledge();
        }
        self.0.handle(input, now, out)
    }

    fn wake(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.0.wake(now, out)
    }

    fn next_wake(&self) -> Option<TimeNs> {
        self.0.next_wake()
    }

    fn held(&self) -> usize {
        self.0.held()
    }

    fn finish(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.0.finish(now, out)
    }
}

fn hasty(plan: &Plan, context: &Arc<OnceLock<Context>>) -> Vec<(String, Built)> {
    let (plan, context) = (plan.clone(), context.clone());
    let factory = move || {
        let stage = plan.stages.iter().find(|stage| stage.name == "journal").unwrap();
        let Ok(Built::Worker(inner)) = journal::build(context.get().unwrap(), &plan, stage) else { unreachable!() };
        let make = inner();
        let stage: barline::runtime::StageFactory =
            Box::new(move |start| make(start).map(|stage| Box::new(Hasty(stage)) as Box<dyn Stage>));
        stage
    };
    vec![("journal".into(), Built::Worker(Box::new(factory)))]
}

#[test]
fn an_acknowledgement_before_the_commit_is_noticed() {
    let variant = Variant { stages: hasty, power: false, ..Variant::SHIPPED };
    println!("{:?}", noticed(variant, "acknowledged and lost"));
}

#[test]
fn a_disk_that_tears_commits_apart_is_noticed() {
    let variant = Variant { order: barline::store::Order::PerSpace, ..Variant::SHIPPED };
    println!("{:?}", noticed(variant, "wrong"));
}
