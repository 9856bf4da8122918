//! Every bar that was ever seen, in queries and live, by identity and revision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use barline_proto::barline::Bar;

/// A bar's identity and revision.
type Id = (String, BTreeMap<String, String>, String, i64, u32);

/// What has been seen.
#[derive(Default)]
pub struct Sightings(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    bars: HashMap<Id, (Bar, String)>,
    /// Those the subscriber was shown.
    shown: HashSet<Id>,
    /// Those it must be shown.
    expected: Vec<Id>,
    problems: Vec<String>,
}

impl Sightings {
    /// Notes that `bar` was seen at `place`.
    pub fn see(&self, bar: Bar, place: &str) {
        let mut seen = self.lock();
        let id = id(&bar);
        let earlier = seen.bars.get(&id).filter(|(earlier, _)| *earlier != bar);
        let problem = earlier.map(|(earlier, where_seen)| {
            format!("one revision with two contents, seen {where_seen}\n{earlier:#?}\nand seen {place}\n{bar:#?}")
        });
        seen.problems.extend(problem);
        seen.bars.entry(id).or_insert_with(|| (bar, place.to_owned()));
    }

    /// Notes that the subscriber was shown `bar`, at `place`.
    pub fn show(&self, bar: Bar, place: &str) {
        if !self.lock().shown.insert(id(&bar)) {
            self.lock().problems.push(format!("shown twice, at {place} again\n{bar:#?}"));
        }
        self.see(bar, place);
    }

    /// Says that the subscriber must have been shown `bars`.
    pub fn expect_shown(&self, bars: &[Bar]) {
        self.lock().expected.extend(bars.iter().map(id));
    }

    /// What it must have been shown and was not.
    pub fn unshown(&self) -> Vec<String> {
        let seen = self.lock();
        seen.expected.iter().filter(|id| !seen.shown.contains(*id)).map(|id| format!("{id:?}")).collect()
    }

    /// What was seen that may not be.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// How much was seen.
    pub fn summary(&self) -> String {
        let seen = self.lock();
        let amended = seen.bars.keys().filter(|id| id.4 > 0).count();
        format!("{} bars seen, {amended} of them amendments, {} shown live", seen.bars.len(), seen.shown.len())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }
}

fn id(bar: &Bar) -> Id {
    let dimensions = bar.dimensions.clone().into_iter().collect();
    (bar.spec.clone(), dimensions, bar.granularity.clone(), bar.start_ns, bar.revision)
}
