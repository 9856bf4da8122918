//! The reader with a member that does what a test says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::ownership::{Chain, Owner};
use super::reader::{Limits, Reader};
use super::shared::Shared;
use crate::broker::consumer::{Consumer, Happening, Partition, Position};
use crate::runtime::Meter;
use crate::spec::Specs;
use crate::store::{Memory, Store};
use crate::window::state;

const LIMITS: Limits = Limits { every: Duration::from_millis(1), bytes: 1 << 20, outstanding: 8 << 20 };

/// After so many polls that told nothing the commits that are still awaited will not come.
const IDLE: u32 = 100;

/// What the coordinator knows, and what happens next.
#[derive(Default)]
struct Script {
    happenings: VecDeque<Happening>,
    /// What happens once a commit has been asked for.
    then: VecDeque<Happening>,
    committed: BTreeMap<Partition, Position>,
    /// How the coming commits end: taken and answered, taken without an answer, refused.
    commits: VecDeque<(bool, bool)>,
    held: BTreeSet<Partition>,
    /// Partitions whose messages are held back, by librdkafka's rule: a partition that is lost and comes again still is.
    paused: BTreeSet<Partition>,
    /// Polls that told nothing.
    idle: u32,
    stop: CancellationToken,
}

#[derive(Clone, Default)]
struct Member(Arc<Mutex<Script>>);

impl Consumer for Member {
    fn poll(&mut self, wait: Duration) -> Option<Happening> {
        let mut script = self.0.lock().unwrap();
        if let Some(next) = script.happenings.pop_front().filter(|next| script.tells(next)) {
            return Some(next);
        }
        script.idle += 1;
        if script.commits.is_empty() || script.idle > IDLE {
            script.stop.cancel();
        }
        drop(script);
        std::thread::sleep(wait.min(LIMITS.every));
        None
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), String> {
        let mut script = self.0.lock().unwrap();
        let then = std::mem::take(&mut script.then);
        script.happenings.extend(then);
        let (taken, answered) = script.commits.pop_front().unwrap_or((false, false));
        if taken {
            script.committed.extend(positions.iter().map(|position| (position.partition.clone(), position.clone())));
        }
        if taken && answered { Ok(()) } else { Err("not taken, or no answer".to_owned()) }
    }

    fn committed(&mut self, partitions: &[Partition]) -> Result<Vec<Position>, String> {
        let script = self.0.lock().unwrap();
        Ok(partitions.iter().filter_map(|partition| script.committed.get(partition).cloned()).collect())
    }

    fn pause(&mut self, paused: bool) {
        let Script { held, paused: all, .. } = &mut *self.0.lock().unwrap();
        if paused { all.extend(held.iter().cloned()) } else { all.retain(|partition| !held.contains(partition)) }
    }
}

impl Script {
    /// Whether something is told, and not held back.
    fn tells(&mut self, happening: &Happening) -> bool {
        match happening {
            Happening::Assigned(partitions) => self.held.extend(partitions.iter().cloned()),
            Happening::Revoked(partitions) => self.held.retain(|partition| !partitions.contains(partition)),
            Happening::Message(partition, ..) => return !self.paused.contains(partition),
            Happening::Down(_) | Happening::Fatal(_) => {}
        }
        true
    }
}

fn partition(number: i32) -> Partition {
    Partition { topic: "ticks".into(), number }
}

/// Runs the reader until nothing more happens; gives the offsets it handed over, by partition.
fn run(store: &Store, member: &Member) -> Vec<(i32, i64, i64)> {
    let stop = CancellationToken::new();
    member.0.lock().unwrap().stop = stop.clone();
    let (claims, claimed) = flume::unbounded();
    let shared = Arc::new(Shared::new(stop, Meter::new("ticks", 0)));
    let reader =
        Reader::open(Box::new(member.clone()), store.clone(), "ticks", LIMITS, claims, shared.clone()).unwrap();
    reader.run().unwrap();
    let handed: Vec<Claim> = claimed.drain().flatten().collect();
    handed.iter().map(|claim| (claim.partition.number, claim.from, claim.to)).collect()
}

fn store() -> Store {
    Store::open(Arc::new(Memory::default()), &Specs::default(), state::convert).unwrap()
}

/// Numbers of what lies in the inbox.
fn inbox(store: &Store) -> usize {
    let mut entries = 0;
    store.load_inbox("ticks", &mut |_, _| entries += 1).unwrap();
    entries
}

fn messages(number: i32, offsets: std::ops::Range<i64>) -> impl Iterator<Item = Happening> {
    offsets.map(move |offset| Happening::Message(partition(number), offset, b"value".to_vec()))
}

#[test]
fn what_was_committed_is_handed_over_and_stays_in_the_inbox_until_the_journal_has_it() {
    let (store, member) = (store(), Member::default());
    {
        let mut script = member.0.lock().unwrap();
        script.happenings.push_back(Happening::Assigned(vec![partition(0), partition(1)]));
        script.happenings.extend(messages(0, 0..3).chain(messages(1, 7..9)));
        script.commits.push_back((true, true));
    }
    assert_eq!(run(&store, &member), [(0, 0, 3), (1, 7, 9)]);
    assert_eq!(inbox(&store), 2);
    // Nobody said the journal has them: the next run hands them over again, by the same numbers.
    member.0.lock().unwrap().happenings.push_back(Happening::Assigned(vec![]));
    assert_eq!(run(&store, &member), [(0, 0, 3), (1, 7, 9)]);
}

#[test]
fn a_commit_without_an_answer_is_judged_once_the_group_is_joined_anew() {
    for taken in [true, false] {
        let (store, member) = (store(), Member::default());
        {
            let mut script = member.0.lock().unwrap();
            script.happenings.push_back(Happening::Assigned(vec![partition(0)]));
            script.happenings.extend(messages(0, 0..3));
            script.commits.push_back((taken, false));
        }
        // The process dies here, as far as the next run can tell.
        assert_eq!(run(&store, &member), []);
        let script = Happening::Assigned(vec![]);
        member.0.lock().unwrap().happenings.push_back(script);
        assert_eq!(run(&store, &member), if taken { vec![(0, 0, 3)] } else { vec![] });
    }
}

#[test]
fn messages_of_a_partition_that_was_taken_away_are_its_next_holders() {
    let (store, member) = (store(), Member::default());
    {
        let mut script = member.0.lock().unwrap();
        script.happenings.push_back(Happening::Assigned(vec![partition(0), partition(1)]));
        script.happenings.extend(messages(0, 0..3).chain(messages(1, 0..2)));
        script.happenings.push_back(Happening::Revoked(vec![partition(0)]));
        script.commits.push_back((true, true));
    }
    assert_eq!(run(&store, &member), [(1, 0, 2)]);
}

#[test]
fn a_partition_that_was_held_back_when_it_was_lost_is_read_when_it_comes_again() {
    let (store, member) = (store(), Member::default());
    {
        let mut script = member.0.lock().unwrap();
        script.happenings.push_back(Happening::Assigned(vec![partition(0)]));
        script.happenings.extend(messages(0, 0..3));
        script.commits.extend([(false, false), (true, true)]);
        // While it tries to commit again, the partition goes; it comes back when nothing is held back any more.
        script.then.push_back(Happening::Revoked(vec![partition(0)]));
        script.then.push_back(Happening::Assigned(vec![]));
        script.then.push_back(Happening::Assigned(vec![partition(0)]));
        script.then.extend(messages(0, 0..5));
    }
    assert_eq!(run(&store, &member), [(0, 0, 5)]);
}

#[test]
fn a_claim_that_another_committed_is_forgotten() {
    let (store, member) = (store(), Member::default());
    {
        let mut script = member.0.lock().unwrap();
        script.happenings.push_back(Happening::Assigned(vec![partition(0)]));
        script.happenings.extend(messages(0, 0..3));
        script.commits.push_back((false, false));
    }
    assert_eq!((run(&store, &member), inbox(&store)), (vec![], 1));
    {
        let mut script = member.0.lock().unwrap();
        let note = Chain::default().taken(Owner { instance: 0, run: 1 }, 0).note();
        script.committed.insert(partition(0), Position { partition: partition(0), offset: 9, note });
        script.happenings.push_back(Happening::Assigned(vec![]));
        script.happenings.push_back(Happening::Down("goes on polling".into()));
    }
    assert_eq!((run(&store, &member), inbox(&store)), (vec![], 0));
}
