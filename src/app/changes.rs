//! What a reload would change, and what it may not.

use std::collections::BTreeSet;
use std::path::Path;

use super::opened::is_journaled;
use crate::model::SpecId;
use crate::serve::admin::ReloadReport;
use crate::spec::units::format_bytes;
use crate::spec::{LatePolicy, Problem, Spec, Specs};
use crate::topology::{Plan, StagePlan};

/// Topology and specs that run, or are about to.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The topology.
    pub plan: &'a Plan,
    /// The specs.
    pub specs: &'a Specs,
}

/// What a process may not change while it runs: it has opened its store already.
///
/// # Errors
/// Every setting of `new` that needs a restart.
pub fn allowed(old: &Plan, new: &Plan, topology: &Path) -> Result<(), Vec<Problem>> {
    let directory = |plan: &Plan| plan.data_dir.as_ref().map_or("in memory".to_owned(), |at| at.display().to_string());
    let fixed = [
        ("data_dir", old.data_dir == new.data_dir, [old, new].map(directory)),
        ("cache", old.cache_bytes == new.cache_bytes, [old, new].map(|plan| format_bytes(plan.cache_bytes))),
    ];
    let wrong = fixed.into_iter().filter(|(_, same, _)| !same).map(|(key, _, [was, is])| {
        let message = format!("`{key}` cannot change while barline runs: it is {was}, to be {is}");
        Problem::in_file(topology.display().to_string(), message).allowed(was).remedy("put it back, or restart barline")
    });
    let wrong: Vec<Problem> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// What is another in `new`, by name.
pub fn between(old: Setup<'_>, new: Setup<'_>) -> ReloadReport {
    let names = |specs: &Specs| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    let differs = |name: &String| match (old.specs.by_name(name), new.specs.by_name(name)) {
        (Some(old), Some(new)) => Spec { id: new.id, ..Spec::clone(old) } != **new,
        _ => false,
    };
    let [specs_added, specs_changed, specs_removed] = compare(names(old.specs), names(new.specs), differs);
    let names = |plan: &Plan| plan.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>();
    let differs = |name: &String| match (old.plan.stage(name), new.plan.stage(name)) {
        (Some(was), Some(is)) => !is_same(old.plan, was, new.plan, is),
        _ => false,
    };
    let [stages_added, stages_changed, stages_removed] = compare(names(old.plan), names(new.plan), differs);
    ReloadReport {
        specs_added,
        specs_changed,
        specs_removed,
        stages_added,
        stages_changed,
        stages_removed,
        ..ReloadReport::default()
    }
}

/// Names that are new, names of what `differs`, names that are gone.
fn compare(old: Vec<String>, new: Vec<String>, differs: impl Fn(&String) -> bool) -> [Vec<String>; 3] {
    let removed = old.iter().filter(|name| !new.contains(name)).cloned().collect();
    let changed = new.iter().filter(|name| differs(name)).cloned().collect();
    let added = new.into_iter().filter(|name| !old.contains(name)).collect();
    [added, changed, removed]
}

fn is_same(old: &Plan, was: &StagePlan, new: &Plan, is: &StagePlan) -> bool {
    let from = |plan: &Plan, stage: &StagePlan| {
        let names = stage.from.iter().filter_map(|from| plan.stages.get(*from));
        names.map(|stage| stage.name.clone()).collect::<Vec<_>>()
    };
    was.kind.name == is.kind.name
        && (was.instances, was.scale, was.mailbox) == (is.instances, is.scale, is.mailbox)
        && was.config.is_same(&*is.config)
        && from(old, was) == from(new, is)
}

/// The specs of `old` whose open windows the next generation is to rebuild from the journal, so that each of their bars is
/// rolled up by one definition as a whole. None where no spec defines its bars in another way: closing what is open and
/// adding to it later gives the same bars. None where a window length has changed: ticks of bars of the old length
/// would be replayed into windows of the new one. None where late ticks are kept out of bars: whether one was late depends
/// on a clock that the next generation would have to know, so each is judged once.
pub fn handed_over(old: Setup<'_>, new: Setup<'_>) -> BTreeSet<SpecId> {
    let kept: Vec<_> = old.specs.iter().filter_map(|was| Some((was, new.specs.by_name(&was.name)?))).collect();
    let finest = |spec: &Spec| spec.granularities.first().map(|finest| finest.length);
    let relaid = kept.iter().any(|(was, is)| finest(was) != finest(is));
    let redefined = kept.iter().any(|(was, is)| !defines_same_bars(was, is));
    let judges = |spec: &Spec| spec.window.late != LatePolicy::Amend;
    let judged = kept.iter().any(|(was, is)| judges(was) || judges(is));
    if relaid || judged || !redefined || !is_journaled(old.plan) || !is_journaled(new.plan) {
        return BTreeSet::new();
    }
    kept.into_iter().map(|(was, _)| was.id).collect()
}

/// Whether the same ticks become the same bars.
fn defines_same_bars(was: &Spec, is: &Spec) -> bool {
    (&was.fields, &was.accumulators, &was.granularities, was.window)
        == (&is.fields, &is.accumulators, &is.granularities, is.window)
}
