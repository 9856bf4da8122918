//! Of every claim in the inbox it becomes known whether it was committed: by committing it while its partition is held, or by
//! asking, once the group was joined anew, who has committed it.

use super::super::claim::Claim;
use super::super::ownership::{Chain, Verdict, judge};
use super::{IDLE, Reader};
use crate::broker::consumer::Position;
use crate::runtime::StageError;

/// A claim in the inbox of which it is not known whether it was committed.
pub(super) struct Unsettled {
    pub claim: Claim,
    /// How often the group had been joined when its partition was lost; `None` while it is held.
    pub lost: Option<u64>,
}

impl Reader {
    /// Commits what is kept, and hands over what was committed, until it is known of every claim.
    pub(super) fn settle(&mut self) -> Result<(), StageError> {
        while !self.unsettled.is_empty() && !self.shared.stop.is_cancelled() {
            let mut mine = self.commit();
            mine.extend(self.judge());
            mine.sort_by_key(|claim| claim.number);
            self.hand_over(mine)?;
            if !self.unsettled.is_empty() {
                self.wait(IDLE)?;
            }
        }
        Ok(())
    }

    /// Commits the claims of partitions that are held; gives those that are committed.
    fn commit(&mut self) -> Vec<Claim> {
        let mut positions = Vec::new();
        for Unsettled { claim, .. } in self.unsettled.iter().filter(|unsettled| unsettled.lost.is_none()) {
            let chain = self.held.get(&claim.partition).and_then(|held| held.committed.as_ref());
            let Some((_, chain)) = chain else { continue };
            let note = chain.taken(self.owner, claim.from).note();
            positions.push(Position { partition: claim.partition.clone(), offset: claim.to, note });
        }
        if positions.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.consumer.commit(&positions) {
            self.say(format!("offsets cannot be committed: {error}"));
            return Vec::new();
        }
        self.up();
        for Position { partition, offset, note } in &positions {
            if let Some(held) = self.held.get_mut(partition) {
                held.committed = Some((Some(*offset), Chain::parse(note)));
            }
        }
        let (kept, done) = std::mem::take(&mut self.unsettled).into_iter().partition(|of| of.lost.is_some());
        self.unsettled = kept;
        done.into_iter().map(|unsettled| unsettled.claim).collect()
    }

    /// Judges the claims of partitions that were lost, once the group was joined anew; gives those that are committed.
    fn judge(&mut self) -> Vec<Claim> {
        let joined = self.joined;
        let is_due = |of: &Unsettled| of.lost.is_some_and(|lost| joined > lost);
        let mut partitions: Vec<_> =
            self.unsettled.iter().filter(|of| is_due(of)).map(|of| of.claim.partition.clone()).collect();
        partitions.sort_unstable();
        partitions.dedup();
        if partitions.is_empty() {
            return Vec::new();
        }
        let committed = match self.consumer.committed(&partitions) {
            Ok(committed) => committed,
            Err(error) => {
                self.say(format!("committed offsets cannot be read: {error}"));
                return Vec::new();
            }
        };
        let (due, kept): (Vec<_>, _) = std::mem::take(&mut self.unsettled).into_iter().partition(is_due);
        self.unsettled = kept;
        let is_mine = |claim: &Claim| {
            let found = committed.iter().find(|position| position.partition == claim.partition);
            let found = found.map(|position| (position.offset, Chain::parse(&position.note)));
            let verdict =
                judge(claim.owner, claim.from, claim.to, found.as_ref().map(|(offset, chain)| (*offset, chain)));
            self.tell(claim, verdict);
            verdict == Verdict::Mine
        };
        let (mine, others): (Vec<_>, Vec<_>) = due.into_iter().map(|of| of.claim).partition(is_mine);
        others.iter().for_each(|claim| self.shared.forget(claim.number));
        mine
    }

    fn tell(&self, claim: &Claim, verdict: Verdict) {
        let (topic, partition, from, to) = (&claim.partition.topic, claim.partition.number, claim.from, claim.to);
        match verdict {
            Verdict::Mine => tracing::info!(%topic, partition, from, to, "claimed before, taken now"),
            Verdict::NotMine => {
                tracing::info!(%topic, partition, from, to, "not committed, left to the partition's holder")
            }
            Verdict::Unknown => tracing::error!(
                %topic, partition, from, to,
                "nobody remembers who committed these messages: they are left out; send them again if they are missing"
            ),
        }
    }
}
