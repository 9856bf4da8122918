//! Barriers that are wrong, each as small as it would slip in: the simulation must notice every one of them.
//!
//! Each stands in a stage put in place of the shipped one; beside each, the same stage with the right order passes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use barline::model::{Envelope, Scale, Signal, TimeNs};
use barline::runtime::sim::SEED_VARIABLE;
use barline::runtime::stage::Target;
use barline::runtime::{Built, Context, Output, Stage, StageError, StageFactory};
use barline::stages::{shard_router, storage_writer};
use barline::topology::{Plan, StagePlan};

use super::sim::{BOUNDS, Changes, beside};
use crate::sim::{CALM, Stages, complaint, run_with};

/// Seeds within which a wrong barrier must be noticed.
const ENOUGH: u64 = 100;

/// The first complaint about stages, and the seed it came with.
fn noticed(stages: Stages) -> Option<(u64, String)> {
    let changes = Arc::new(Changes::default());
    let wrong = |seed| {
        let run = run_with(seed, "scaled.yaml", CALM, |_| BOUNDS.to_owned(), stages, beside(seed, &changes));
        complaint(&run).map(|wrong| (seed, wrong))
    };
    let noticed = (1..=ENOUGH).find_map(wrong);
    // Without changes there would be nothing to notice.
    assert!(noticed.is_some() || changes.done.load(Relaxed) > ENOUGH, "too few changes came to their end");
    noticed
}

fn must_notice(stages: Stages) {
    if std::env::var(SEED_VARIABLE).is_err() {
        println!("{:?}", noticed(stages).expect("every bar was right although the barrier was not"));
    }
}

/// One call of a stage.
enum Call {
    Handle(Envelope),
    Wake,
    Finish,
}

/// A stage around a shipped one: it makes the calls, and passes on what comes of them, in its own way.
struct Around {
    inner: Box<dyn Stage>,
    way: Way,
    kept: Kept,
}

/// What is held back from one call to the next.
#[derive(Default)]
struct Kept {
    given: Vec<(Target, Envelope)>,
    input: Option<Envelope>,
}

type Way = fn(&mut dyn Stage, &mut Kept, Call, TimeNs, &mut Output) -> Result<(), StageError>;

impl Stage for Around {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        (self.way)(self.inner.as_mut(), &mut self.kept, Call::Handle(input), now, out)
    }

    fn wake(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        (self.way)(self.inner.as_mut(), &mut self.kept, Call::Wake, now, out)
    }

    fn next_wake(&self) -> Option<TimeNs> {
        self.inner.next_wake()
    }

    fn finish(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        (self.way)(self.inner.as_mut(), &mut self.kept, Call::Finish, now, out)
    }
}

fn call(inner: &mut dyn Stage, call: Call, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
    match call {
        Call::Handle(input) => inner.handle(input, now, out),
        Call::Wake => inner.wake(now, out),
        Call::Finish => inner.finish(now, out),
    }
}

fn given(inner: &mut dyn Stage, made: Call, now: TimeNs) -> Result<Vec<(Target, Envelope)>, StageError> {
    let mut out = Output::default();
    call(inner, made, now, &mut out)?;
    Ok(out.drain().collect())
}

fn pass_on(given: impl IntoIterator<Item = (Target, Envelope)>, out: &mut Output) {
    for (target, envelope) in given {
        match target {
            Target::All => out.emit(envelope),
            Target::Instance { stage, instance } => out.route(stage, instance, envelope),
        }
    }
}

fn is_change((_, envelope): &(Target, Envelope)) -> bool {
    matches!(envelope, Envelope::Signal(Signal::Scale(_)))
}

type Build = fn(&Context, &Plan, &StagePlan) -> Result<Built, StageError>;

/// The stage `name` of a plan, made by `build`, with `way` around it.
fn around(
    name: &'static str,
    build: Build,
    way: Way,
    plan: &Plan,
    context: &Arc<OnceLock<Context>>,
) -> Vec<(String, Built)> {
    let (plan, context) = (plan.clone(), context.clone());
    let factory = move || {
        let stage = plan.stage(name).unwrap();
        let Ok(Built::Worker(inner)) = build(context.get().unwrap(), &plan, stage) else { unreachable!() };
        let make = inner();
        let factory: StageFactory = Box::new(move |start| {
            make(start).map(|inner| Box::new(Around { inner, way, kept: Kept::default() }) as Box<dyn Stage>)
        });
        factory
    };
    vec![(name.into(), Built::Worker(Box::new(factory)))]
}

/// The router, what it routes kept back until the next call; `overtakes` says whether a change is not.
fn routed_later(
    overtakes: bool,
    inner: &mut dyn Stage,
    kept: &mut Kept,
    made: Call,
    now: TimeNs,
    out: &mut Output,
) -> Result<(), StageError> {
    let ends = matches!(made, Call::Finish);
    let (changes, ticks): (Vec<_>, Vec<_>) = given(inner, made, now)?.into_iter().partition(is_change);
    let before = std::mem::replace(&mut kept.given, ticks);
    if overtakes {
        pass_on(changes.into_iter().chain(before), out);
    } else {
        pass_on(before.into_iter().chain(changes), out);
    }
    if ends {
        pass_on(std::mem::take(&mut kept.given), out);
    }
    Ok(())
}

#[test]
fn a_change_that_overtakes_what_was_routed_before_it_is_noticed() {
    const IN_ORDER: Way = |inner, kept, made, now, out| routed_later(false, inner, kept, made, now, out);
    const OVERTAKING: Way = |inner, kept, made, now, out| routed_later(true, inner, kept, made, now, out);
    assert_eq!(noticed(|plan, context| around("route", shard_router::build, IN_ORDER, plan, context)), None);
    must_notice(|plan, context| around("route", shard_router::build, OVERTAKING, plan, context));
}

/// The router, its changes told for what arrived from so many ticks further back on.
fn told_from(back: u64, inner: &mut dyn Stage, made: Call, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
    let moved = |(target, envelope)| match envelope {
        Envelope::Signal(Signal::Scale(change)) => {
            let change = Scale { position: change.position.saturating_sub(back), ..change };
            (target, Envelope::Signal(Signal::Scale(change)))
        }
        envelope => (target, envelope),
    };
    pass_on(given(inner, made, now)?.into_iter().map(moved), out);
    Ok(())
}

#[test]
fn a_change_told_for_ticks_that_were_routed_before_it_is_noticed() {
    const RIGHT: Way = |inner, _, made, now, out| told_from(0, inner, made, now, out);
    const BACK: Way = |inner, _, made, now, out| told_from(40, inner, made, now, out);
    assert_eq!(noticed(|plan, context| around("route", shard_router::build, RIGHT, plan, context)), None);
    must_notice(|plan, context| around("route", shard_router::build, BACK, plan, context));
}

/// The writer, each input said to be done with before it is stored: a share goes to another instance while what was
/// closed of it is still on its way.
fn stored_later(
    inner: &mut dyn Stage,
    kept: &mut Kept,
    made: Call,
    now: TimeNs,
    out: &mut Output,
) -> Result<(), StageError> {
    let (next, made) = match made {
        Call::Handle(input) => (Some(input), None),
        made => (None, Some(made)),
    };
    if let Some(before) = std::mem::replace(&mut kept.input, next) {
        call(inner, Call::Handle(before), now, out)?;
    }
    made.map_or(Ok(()), |made| call(inner, made, now, out))
}

#[test]
fn a_share_moved_before_what_was_closed_of_it_is_stored_is_noticed() {
    const LATER: Way = |inner, kept, made, now, out| stored_later(inner, kept, made, now, out);
    // Where nothing is moved, and nothing fails, it does no harm.
    for seed in 1..=ENOUGH {
        let stages: Stages = |plan, context| around("write", storage_writer::build, LATER, plan, context);
        let run = run_with(seed, "scaled.yaml", CALM, |_| "4".to_owned(), stages, |_| {});
        assert_eq!(complaint(&run), None, "seed {seed}");
    }
    must_notice(|plan, context| around("write", storage_writer::build, LATER, plan, context));
}
