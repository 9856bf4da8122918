//! Bars on their way, in the order of their positions: read, encoded, handed over, acknowledged, settled.

use std::collections::{HashSet, VecDeque};

use crate::model::{Record, SeriesId, TimeNs};
use crate::store::{Fate, Settled};

/// A row of bars that go out in order.
#[derive(Debug, Default)]
pub struct Lane {
    /// Positions below are in the lane, or settled.
    pub next: u64,
    /// Where it ends; `u64::MAX` where it does not.
    pub until: u64,
    items: VecDeque<Item>,
    /// The number of the first item; numbers are never given twice.
    first: u64,
    /// Items before this one have been handed over.
    at: usize,
    /// Handed over, their end not told.
    under_way: usize,
    bytes: usize,
}

/// A stretch of positions with at most one bar, at its end.
#[derive(Debug)]
pub struct Item {
    /// Where it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// The bar, where there is one to be sent.
    pub bar: Option<Outbound>,
    state: State,
}

/// A bar to be sent.
#[derive(Debug)]
pub struct Outbound {
    /// As it is sent.
    pub record: Record,
    /// Its series.
    pub series: SeriesId,
    /// Where its window ends.
    pub window_end: TimeNs,
    /// When it was stored.
    pub stored_at: TimeNs,
    /// When it was handed over last.
    pub sent_at: TimeNs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be handed over.
    Waiting,
    /// Handed over.
    Sent,
    /// In the topic, but not visible before its transaction is committed.
    Acked,
    /// Not in the topic, to be handed over once more.
    Failed,
    /// Done with.
    Done(Option<Fate>),
}

impl Lane {
    /// The positions from `next` to `until`.
    pub fn new(next: u64, until: u64) -> Self {
        Self { next, until, ..Self::default() }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Handed over, their end not told.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// About the bytes of all records in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds a bar to be sent.
    pub fn push(&mut self, to: u64, bar: Outbound) {
        self.bytes += bar.record.bytes();
        self.add(to, Some(bar), State::Waiting);
    }

    /// Adds positions that are done with: the last one's bar has this fate, if it is one of those to be sent.
    pub fn pass(&mut self, to: u64, fate: Option<Fate>) {
        if to > self.next {
            self.add(to, None, State::Done(fate));
        }
    }

    /// Leaves out positions below `next`, which are settled.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    fn add(&mut self, to: u64, bar: Option<Outbound>, state: State) {
        self.items.push_back(Item { from: self.next, to, bar, state });
        self.next = to;
    }

    /// The next bar to be handed over and its number.
    pub fn waiting(&mut self) -> Option<(u64, &mut Outbound)> {
        while self.items.get(self.at).is_some_and(|item| item.state != State::Waiting) {
            self.at += 1;
        }
        let number = self.first + self.at as u64;
        self.items.get_mut(self.at)?.bar.as_mut().map(|bar| (number, bar))
    }

    /// It was handed over.
    pub fn sent(&mut self, now: TimeNs) {
        if let Some(item) = self.items.get_mut(self.at) {
            item.state = State::Sent;
            item.bar.iter_mut().for_each(|bar| bar.sent_at = now);
            self.under_way += 1;
            self.at += 1;
        }
    }

    /// The end of number `number` is told: its item, if it was under way.
    fn end(&mut self, number: u64) -> Option<&mut Item> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let item = self.items.get_mut(at).filter(|item| item.state == State::Sent)?;
        self.under_way -= 1;
        Some(item)
    }

    /// Number `number` is in the topic; `visible` where that is all. Gives the bar.
    pub fn delivered(&mut self, number: u64, visible: bool) -> Option<&Outbound> {
        let item = self.end(number)?;
        item.state = if visible { State::Done(Some(Fate::Delivered)) } else { State::Acked };
        item.bar.as_ref()
    }

    /// Number `number` is not in the topic, and may be handed over again.
    pub fn failed(&mut self, number: u64) {
        self.end(number).into_iter().for_each(|item| item.state = State::Failed);
    }

    /// Number `number`, under way or the next to be handed over, will never be taken. Gives its position and the bar.
    pub fn refused(&mut self, number: u64) -> Option<(u64, &Outbound)> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let item = self.items.get_mut(at).filter(|item| matches!(item.state, State::Sent | State::Waiting))?;
        self.under_way -= usize::from(item.state == State::Sent);
        item.state = State::Done(Some(Fate::Quarantined));
        item.bar.as_ref().map(|bar| (item.to - 1, bar))
    }

    /// When nothing is under way: what failed is handed over again, and so is whatever of its series came after it, so that
    /// the last one to arrive is the last one.
    pub fn retry(&mut self) {
        let mut behind = HashSet::new();
        for item in &mut self.items {
            let Some(bar) = &item.bar else { continue };
            let is_again = item.state == State::Failed
                || behind.contains(&bar.series)
                    && matches!(item.state, State::Acked | State::Done(Some(Fate::Delivered)));
            if is_again {
                behind.insert(bar.series);
                item.state = State::Waiting;
            }
        }
        self.at = 0;
    }

    /// A transaction was committed: what was handed over in it is visible.
    pub fn committed(&mut self) {
        for item in self.items.iter_mut().filter(|item| matches!(item.state, State::Sent | State::Acked)) {
            item.state = State::Done(Some(Fate::Delivered));
        }
        self.under_way = 0;
    }

    /// Gives up what is not handed over.
    pub fn give_up(&mut self, fate: Fate) {
        for item in self.items.iter_mut().filter(|item| matches!(item.state, State::Waiting | State::Failed)) {
            item.state = State::Done(Some(fate));
        }
    }

    /// What has been done with from the front on.
    pub fn take_settled(&mut self, settled: &mut Vec<Settled>) {
        while let Some(Item { from, to, state: State::Done(fate), .. }) = self.items.front() {
            settled.push(Settled { from: *from, to: *to, fate: *fate });
            let bytes = self.items.pop_front().and_then(|item| item.bar).map_or(0, |bar| bar.record.bytes());
            self.bytes -= bytes;
            self.first += 1;
            self.at = self.at.saturating_sub(1);
        }
    }

    /// Everything that was handed over or is done with, as if it were settled.
    pub fn promised(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let is_promised = |item: &&Item| !matches!(item.state, State::Waiting | State::Failed);
        self.items.iter().take_while(is_promised).map(|item| (item.from, item.to))
    }

    /// Empties it, to go on at `next` up to `until`. What is told later of what was in it is none of its business.
    pub fn restart(&mut self, next: u64, until: u64) {
        self.first += self.items.len() as u64;
        self.items.clear();
        (self.at, self.under_way, self.bytes, self.next, self.until) = (0, 0, 0, next, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(series: &[u32]) -> Lane {
        let mut lane = Lane::new(10, u64::MAX);
        for (position, series) in (10..).zip(series) {
            let bar = Outbound {
                record: Record { value: vec![0; 5], ..Record::default() },
                series: SeriesId(*series),
                window_end: 0,
                stored_at: 0,
                sent_at: 0,
            };
            lane.push(position + 1, bar);
        }
        lane
    }

    fn send_all(lane: &mut Lane) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some((number, _)) = lane.waiting() {
            sent.push(number);
            lane.sent(1);
        }
        sent
    }

    fn settled(lane: &mut Lane) -> Vec<(u64, u64)> {
        let mut settled = Vec::new();
        lane.take_settled(&mut settled);
        settled.iter().map(|settled| (settled.from, settled.to)).collect()
    }

    #[test]
    fn what_is_acknowledged_out_of_order_is_settled_in_order() {
        let mut lane = lane(&[1, 2, 3]);
        lane.pass(20, None);
        assert_eq!(send_all(&mut lane), [0, 1, 2]);
        assert!(lane.delivered(2, true).is_some() && lane.delivered(2, true).is_none());
        assert_eq!(settled(&mut lane), []);
        lane.delivered(0, true);
        assert_eq!(settled(&mut lane), [(10, 11)]);
        lane.delivered(1, true);
        assert_eq!(settled(&mut lane), [(11, 12), (12, 13), (13, 20)]);
        assert_eq!((lane.under_way(), lane.bytes(), lane.len(), lane.next), (0, 0, 0, 20));
    }

    #[test]
    fn after_a_failure_the_rest_of_its_series_goes_again_in_order() {
        let mut lane = lane(&[1, 2, 1, 3]);
        send_all(&mut lane);
        lane.failed(0);
        [1, 2, 3].iter().for_each(|number| _ = lane.delivered(*number, true));
        assert_eq!((settled(&mut lane), lane.under_way()), (vec![], 0));
        lane.retry();
        assert_eq!(send_all(&mut lane), [0, 2]);
        [0, 2].iter().for_each(|number| _ = lane.delivered(*number, true));
        assert_eq!(settled(&mut lane).len(), 4);
    }

    #[test]
    fn a_refused_bar_holds_up_no_other() {
        let mut lane = lane(&[1, 1]);
        assert_eq!(lane.waiting().map(|(number, _)| number), Some(0));
        assert_eq!(lane.refused(0).map(|(position, _)| position), Some(10));
        assert_eq!(send_all(&mut lane), [1]);
        lane.delivered(1, false);
        assert_eq!(lane.promised().collect::<Vec<_>>(), [(10, 11), (11, 12)]);
        lane.committed();
        assert_eq!(settled(&mut lane), [(10, 11), (11, 12)]);
    }
}
