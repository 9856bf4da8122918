//! A job done on a data directory no process has.

use std::path::Path;
use std::sync::Arc;

use super::{Asked, Bar, failure};
use crate::cli::Failure;
use crate::runtime::{Clock, SystemClock, load_catalog};
use crate::spec::{self, problem};
use crate::store::{Fjall, Kv, ReadOnly, Store};
use crate::tools::replay::Grounds;
use crate::tools::{Job, Report, Step, job, verify};
use crate::topology::Plan;
use crate::window::state;

/// Opens the store, does the job, and closes it.
pub(super) fn run(asked: &Asked, plan: &Plan, data_dir: &Path, bar: &mut Bar) -> Result<Report, Failure> {
    // fjall would make one.
    if !data_dir.is_dir() {
        return Err(Failure::start(format!(
            "there is no data directory {}; name one with --data-dir, or a topology with --topology",
            data_dir.display()
        )));
    }
    let specs = spec::load_dir(&plan.specs_dir).map_err(|problems| Failure::input(problem::render(&problems)))?;
    let disk: Arc<dyn Kv> = Arc::new(Fjall::open(data_dir, plan.cache_bytes).map_err(Failure::start)?);
    let mut found = None;
    if let Job::Verify { repair } = &asked.job {
        let looked = verify::look(&*disk, &mut |step| bar.show(step)).map_err(failure)?;
        if !repair {
            return Ok(Report::Verify(looked.report()));
        }
        found = Some(looked);
    }
    let kv = if asked.writes { disk } else { Arc::new(ReadOnly::new(disk)) };
    let store = Store::open(kv, &specs, state::convert).map_err(Failure::start)?;
    let catalog = load_catalog(&store, &specs).map_err(Failure::start)?;
    let now = SystemClock.now();
    store.set_now(now);
    let grounds = Grounds { specs: &specs, catalog: &catalog, store: &store, now };
    let watch = &mut |step: Step<'_>| bar.show(step);
    match found {
        Some(found) => verify::mend(grounds, found, watch).map(Report::Verify),
        None => job::run(grounds, &asked.job, watch),
    }
    .map_err(failure)
}
