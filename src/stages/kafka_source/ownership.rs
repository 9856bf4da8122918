//! Whose messages are whose, when a partition goes from one instance to another: facts in, decision out.
//!
//! An instance takes messages `[from, to)` of a partition in three steps: it keeps them in its own inbox, durably; it
//! commits `to` to the group's coordinator; only then its pipeline gets them. What the commit carries beside the offset is
//! the [`Chain`]: who took the partition over where. Every message is therefore counted once:
//!
//! 1. The coordinator takes commits only from members of the present generation, and a member commits only partitions it
//!    holds. So commits of a partition form one sequence, each continuing the one before: the stretches of log between
//!    them are disjoint and leave nothing out.
//! 2. A stretch is counted by whoever committed it, for it is in that one's inbox until its journal has it, and the
//!    journal takes an inbox entry once, by its number.
//! 3. Nobody else counts it: others begin at the committed offset.
//! 4. Where an instance does not know whether its commit was taken (it died, or the answer was lost), the chain tells:
//!    its own stint must reach from `from` or before to `to` or beyond. It asks only after it has joined the group anew,
//!    when the generation has changed and no commit of its former life can be taken any more.

use crate::store::inbox::Run;

/// What the note of a commit begins with.
const PREFIX: &str = "barline1:";
/// The most takeovers remembered: the note stays below what brokers keep, 4096 bytes.
const MOST: usize = 80;

/// Who takes messages: one run of one store.
pub type Owner = Run;

/// From `from` on, until the next stint begins, messages were taken by `owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stint {
    owner: Owner,
    from: i64,
}

/// Who took a partition over where, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain(Vec<Stint>);

/// Whether messages kept in an inbox are to be counted by who keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are.
    Mine,
    /// Whoever has the partition reads them from the log.
    NotMine,
    /// The group's offset lies behind them, and nobody remembers by whom it was put there.
    Unknown,
}

impl Chain {
    /// Reads the note of a commit; empty where it is none of ours.
    pub fn parse(note: &str) -> Self {
        let stints = note.strip_prefix(PREFIX).map(|rest| rest.split(',').map(stint).collect::<Option<Vec<_>>>());
        let ascends = |stints: &Vec<Stint>| stints.windows(2).all(|pair| pair[0].from < pair[1].from);
        Self(stints.flatten().filter(ascends).unwrap_or_default())
    }

    /// As the note of a commit.
    pub fn note(&self) -> String {
        let stint = |Stint { owner, from }: &Stint| format!("{:x}.{:x}@{from:x}", owner.instance, owner.run);
        PREFIX.to_owned() + &self.0.iter().map(stint).collect::<Vec<_>>().join(",")
    }

    /// The chain once `owner` has taken what follows `from`. An offset set back by hand begins a new one.
    pub fn taken(&self, owner: Owner, from: i64) -> Self {
        let mut stints = self.0.clone();
        if stints.last().is_some_and(|last| last.from > from || (last.from == from && last.owner != owner)) {
            stints.clear();
        }
        if stints.last().is_none_or(|last| last.owner != owner) {
            stints.push(Stint { owner, from });
        }
        let forgotten = stints.len().saturating_sub(MOST);
        Self(stints.split_off(forgotten))
    }
}

fn stint(text: &str) -> Option<Stint> {
    let (owner, from) = text.split_once('@')?;
    let (instance, run) = owner.split_once('.')?;
    let instance = u64::from_str_radix(instance, 16).ok()?;
    let owner = Owner { instance, run: u32::from_str_radix(run, 16).ok()? };
    Some(Stint { owner, from: i64::from_str_radix(from, 16).ok()? })
}

/// Whose the messages `[from, to)` are that `owner` kept, given the group's offset and its chain.
pub fn judge(owner: Owner, from: i64, to: i64, committed: Option<(i64, &Chain)>) -> Verdict {
    let Some((_, Chain(stints))) = committed.filter(|(offset, _)| *offset >= to) else { return Verdict::NotMine };
    let after = stints.partition_point(|stint| stint.from <= from);
    let Some(stint) = after.checked_sub(1).map(|at| stints[at]) else { return Verdict::Unknown };
    let reaches = stints.get(after).is_none_or(|next| next.from >= to);
    if stint.owner == owner && reaches { Verdict::Mine } else { Verdict::NotMine }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: i64 = 40;

    /// One partition's coordinator.
    #[derive(Default)]
    struct Group {
        committed: Option<(i64, String)>,
        /// Which member holds the partition, and in which generation.
        holder: Option<(usize, u64)>,
        generation: u64,
    }

    /// One instance: what lies on its disk, and what it remembers.
    struct Instance {
        owner: Owner,
        inbox: Vec<(Owner, i64, i64)>,
        counted: Vec<(i64, i64)>,
        held: Option<(u64, i64, Chain)>,
    }

    impl Instance {
        fn crash(&mut self) {
            self.owner.run += 1;
            self.held = None;
        }

        fn join(&mut self, me: usize, group: &mut Group) {
            group.generation += 1;
            group.holder = Some((me, group.generation));
            let committed = group.committed.as_ref().map(|(offset, note)| (*offset, Chain::parse(note)));
            for (owner, from, to) in std::mem::take(&mut self.inbox) {
                let known = committed.as_ref().map(|(offset, chain)| (*offset, chain));
                match judge(owner, from, to, known) {
                    Verdict::Mine => self.count(from, to),
                    Verdict::NotMine => {}
                    Verdict::Unknown => panic!("the chain was cut"),
                }
            }
            let (next, chain) = committed.unwrap_or_default();
            self.held = Some((group.generation, next, chain));
        }

        /// Takes up to `len` messages; `answered` says whether the coordinator's answer arrives, `dies` after which step
        /// the process does.
        fn take(&mut self, me: usize, group: &mut Group, len: i64, answered: bool, dies: u8) {
            let Some((generation, from, chain)) = self.held.clone() else { return };
            let to = (from + len).min(LOG);
            if from == to {
                return;
            }
            self.inbox.push((self.owner, from, to));
            if dies == 1 {
                return self.crash();
            }
            let chain = chain.taken(self.owner, from);
            let taken = group.holder == Some((me, generation));
            if taken {
                group.committed = Some((to, chain.note()));
            }
            if dies == 2 || !answered || !taken {
                return if dies == 2 { self.crash() } else { self.held = None };
            }
            self.inbox.pop();
            self.count(from, to);
            self.held = Some((generation, to, chain));
        }

        fn count(&mut self, from: i64, to: i64) {
            if !self.counted.contains(&(from, to)) {
                self.counted.push((from, to));
            }
        }
    }

    proptest! {
        #[test]
        fn every_message_is_counted_once_whoever_dies_and_whatever_moves(
            steps in prop::collection::vec((0usize..3, 0u8..6, 1i64..5, any::<bool>(), 0u8..6), 0..120),
        ) {
            let mut group = Group::default();
            let fresh = |instance| Instance {
                owner: Owner { instance, run: 1 }, inbox: vec![], counted: vec![], held: None,
            };
            let mut instances = [fresh(1), fresh(2), fresh(3)];
            for (me, what, len, answered, dies) in steps {
                match what {
                    0 | 1 => instances[me].join(me, &mut group),
                    2 => instances[me].crash(),
                    _ => instances[me].take(me, &mut group, len, answered, dies),
                }
            }
            for (me, instance) in instances.iter_mut().enumerate() {
                instance.crash();
                instance.join(me, &mut group);
                instance.take(me, &mut group, if me == 2 { LOG } else { 1 }, true, 0);
            }
            let mut counted: Vec<_> = instances.iter().flat_map(|i| i.counted.clone()).flat_map(|(a, b)| a..b).collect();
            counted.sort_unstable();
            prop_assert_eq!(counted, (0..LOG).collect::<Vec<_>>());
        }

        #[test]
        fn a_note_is_read_as_it_was_written_and_other_notes_are_none(
            starts in prop::collection::btree_set(0..i64::MAX, 0..300), other in "\\PC{0,40}",
        ) {
            let mut chain = Chain::default();
            for (at, from) in starts.iter().enumerate() {
                chain = chain.taken(Owner { instance: u64::MAX - at as u64, run: u32::MAX }, *from);
            }
            prop_assert!(chain.note().len() < 4096);
            if !starts.is_empty() {
                prop_assert_eq!(Chain::parse(&chain.note()), chain);
            }
            prop_assert_eq!(Chain::parse(&other), Chain::default());
        }
    }

    #[test]
    fn what_nobody_remembers_is_unknown_and_what_was_not_committed_is_for_others() {
        let owner = Owner { instance: 1, run: 1 };
        let chain = Chain::default().taken(Owner { instance: 2, run: 1 }, 50);
        assert_eq!(judge(owner, 10, 20, Some((60, &chain))), Verdict::Unknown);
        assert_eq!(judge(owner, 50, 60, Some((60, &chain))), Verdict::NotMine);
        assert_eq!(judge(owner, 60, 70, Some((60, &chain))), Verdict::NotMine);
        assert_eq!(judge(owner, 60, 70, None), Verdict::NotMine);
    }
}
