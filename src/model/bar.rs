//! Bars: closed windows, as a header plus the mergeable state of every accumulator of the spec.

use super::{SeriesId, SpecId, TimeNs};

/// Bars of one spec. Between aggregator and writer each is what was gathered since the window was last
/// closed; after the writer each is the whole stored bar.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BarBatch {
    /// The spec.
    pub spec: SpecId,
    /// Where the first bar stands among all bars ever stored, the others following; 0 before the writer.
    pub position: u64,
    /// One header per bar.
    pub heads: Vec<BarHead>,
    /// The accumulator states of all bars, back to back; see [`BarBatch::state`].
    pub words: Vec<u64>,
}

/// One bar without its accumulators. Its identity is (spec, granularity, series, start).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BarHead {
    /// The series.
    pub series: SeriesId,
    /// Index into the spec's granularities, 0 the finest.
    pub granularity: u8,
    /// What is to be known besides the numbers.
    pub flags: BarFlags,
    /// 0 when first stored; every amendment adds 1.
    pub revision: u32,
    /// Window start, inclusive.
    pub start: TimeNs,
    /// The lowest event time of its ticks.
    pub first: TimeNs,
    /// The highest event time of its ticks.
    pub last: TimeNs,
    /// Ticks in the window.
    pub ticks: u64,
    /// Of these, how many came after the series' watermark had passed the window's end.
    pub late: u64,
    /// Every tick of the window with an arrival number below this one is in the bar.
    pub covers: u64,
    /// Where its states begin in [`BarBatch::words`].
    pub words_at: u32,
    /// How many words they take.
    pub words_len: u32,
}

/// Facts about a bar, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct BarFlags(pub u8);

impl BarFlags {
    /// Closed by a shutdown before its window's end had passed.
    pub const PARTIAL: Self = Self(1);
    /// An integer sum left its range and is shown clamped.
    pub const OVERFLOW: Self = Self(2);
    /// Between aggregator and writer only: this is the whole bar, to be stored instead of merged.
    pub const WHOLE: Self = Self(4);
    /// Rolled up, at least in part, under an earlier definition of its spec: metrics and windows that are new since then
    /// lack what came before.
    pub const REDEFINED: Self = Self(8);
    /// Closed by a shutdown or a change of the number of instances before its series' watermark had passed its window's end:
    /// a tick that comes for it later need not be late.
    pub const OPEN_ENDED: Self = Self(16);
    /// What is told of a bar, by name.
    pub const NAMED: [(Self, &str); 3] =
        [(Self::PARTIAL, "partial"), (Self::OVERFLOW, "overflow"), (Self::REDEFINED, "redefined")];

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets or clears the bits of `other`.
    pub fn set(&mut self, other: Self, on: bool) {
        self.0 = if on { self.0 | other.0 } else { self.0 & !other.0 };
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl BarBatch {
    /// An empty batch of `spec`.
    pub fn new(spec: SpecId) -> Self {
        Self { spec, ..Self::default() }
    }

    /// How many bars.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// The position after the last bar.
    pub fn next_position(&self) -> u64 {
        self.position + self.heads.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Appends a bar; `head.words_at` and `head.words_len` are filled in here.
    pub fn push(&mut self, mut head: BarHead, state: &[u64]) {
        head.words_at = self.words.len() as u32;
        head.words_len = state.len() as u32;
        self.words.extend_from_slice(state);
        self.heads.push(head);
    }

    /// The accumulator states of `head`, a header of this batch.
    pub fn state(&self, head: &BarHead) -> &[u64] {
        &self.words[head.words_at as usize..][..head.words_len as usize]
    }
}
