//! From space to space, from value to value.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::check::{Content, Layouts, check};
use super::{Damage, KindCount, TOLD, VerifyReport};
use crate::store::{Kv, doom, keys, meta, value};
use crate::tools::watch::{ToolError, Watch, tell};

/// A damaged value.
pub(super) struct Bad {
    pub content: Content,
    pub space: String,
    pub key: Vec<u8>,
    pub frame: Bytes,
    pub what: String,
    pub outcome: String,
    pub repaired: bool,
}

/// What a walk has found.
#[derive(Default)]
pub(super) struct Walk {
    counts: BTreeMap<Content, (u64, u64)>,
    pub bad: Vec<Bad>,
    /// By spec: numbers of series that values name.
    named: BTreeMap<String, BTreeSet<u32>>,
    offsets: Vec<(u64, u32)>,
    /// What arrived before this may be in partitions clustered by series, which keep no arrival numbers.
    clustered_below: u64,
    bytes: u64,
}

impl Walk {
    /// Checks every value.
    pub fn over(kv: &dyn Kv, watch: &mut Watch<'_>) -> Result<Self, ToolError> {
        let spaces = kv.spaces("");
        let total = spaces.iter().map(|space| kv.size(space)).sum();
        let layouts = layouts(kv)?;
        let mut walk = Self::default();
        for space in &spaces {
            // What is about to be dropped is no data any more, or not yet.
            if doom::is(kv, space)? {
                continue;
            }
            walk.space(kv, space, &layouts, total, watch)?;
        }
        if !kv.spaces("sorted/").is_empty() {
            walk.clustered_below = meta::highest_replay_from(kv)?;
        }
        walk.check_series(kv)?;
        Ok(walk)
    }

    fn space(
        &mut self,
        kv: &dyn Kv,
        space: &str,
        layouts: &Layouts,
        total: u64,
        watch: &mut Watch<'_>,
    ) -> Result<(), ToolError> {
        let spec = space.split('/').nth(1).unwrap_or_default();
        let (mut stopped, mut last) = (None, Vec::new());
        let read = kv.scan(space, &[], None, &mut |key, frame| {
            let (content, size) = (Content::of(space, key), (key.len() + frame.len()) as u64);
            let count = self.counts.entry(content).or_default();
            *count = (count.0 + 1, count.1 + size);
            self.bytes += size;
            match check(space, key, &frame, layouts) {
                Ok(facts) => {
                    self.offsets.extend(facts.offsets);
                    if !facts.series.is_empty() {
                        self.named.entry(spec.to_owned()).or_default().extend(facts.series);
                    }
                }
                Err(what) => self.note(content, space, key, frame, what),
            }
            last = key.to_vec();
            match tell(watch, "checking", self.bytes.min(total), total) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    stopped = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
        if let Err(error) = read {
            // The rest of the space cannot be reached; other spaces can.
            self.note(
                Content::of(space, &last),
                space,
                &last,
                Bytes::new(),
                format!("what follows this key cannot be read: {error}"),
            );
        }
        Ok(())
    }

    /// Every number that is named must be taken. Looked at last: a series is stored before, or with, whatever names it.
    fn check_series(&mut self, kv: &dyn Kv) -> Result<(), ToolError> {
        for (spec, mut named) in std::mem::take(&mut self.named) {
            let space = keys::series_space(&spec);
            kv.scan_keys(&space, &[], None, &mut |key| {
                keys::parse_series(key).map(|id| named.remove(&id.0));
                ControlFlow::Continue(())
            })?;
            for number in named {
                let what = format!("series number {number} has ticks or bars, and no entry");
                self.note(Content::Series, &space, &number.to_be_bytes(), Bytes::new(), what);
            }
        }
        Ok(())
    }

    fn note(&mut self, content: Content, space: &str, key: &[u8], frame: Bytes, what: String) {
        let (space, key) = (space.to_owned(), key.to_vec());
        self.bad.push(Bad { content, space, key, frame, what, outcome: String::new(), repaired: false });
    }

    /// Ranges of arrival numbers up to the last block that no block holds.
    fn gaps(&mut self) -> Vec<(u64, u64)> {
        self.offsets.sort_unstable();
        let mut gaps = Vec::new();
        let mut end = self.clustered_below;
        for (offset, rows) in &self.offsets {
            if *offset > end {
                gaps.push((end, *offset));
            }
            end = end.max(offset + u64::from(*rows));
        }
        gaps
    }

    /// What there is to tell.
    pub fn report(mut self, repair: bool, restored: u64) -> VerifyReport {
        let gaps = self.gaps();
        let count = |content: &Content| {
            let (values, bytes) = self.counts.get(content).copied().unwrap_or_default();
            let bad = || self.bad.iter().filter(|bad| bad.content == *content);
            let repaired = bad().filter(|bad| bad.repaired).count() as u64;
            KindCount { kind: content.name().to_owned(), values, bytes, bad: bad().count() as u64, repaired }
        };
        let kinds = Content::ALL.iter().map(count).filter(|kind| kind.values + kind.bad > 0).collect();
        let left = self.bad.iter().filter(|bad| !bad.repaired).count() as u64;
        let damages = self.bad.into_iter().take(TOLD).map(Damage::from).collect();
        VerifyReport { kinds, damages, left, restored, gaps, repair }
    }
}

impl From<Bad> for Damage {
    fn from(bad: Bad) -> Self {
        let key = match bad.content {
            Content::Meta | Content::Cursor | Content::Refused => String::from_utf8_lossy(&bad.key).into_owned(),
            _ => bad.key.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let Bad { content, space, what, outcome, repaired, .. } = bad;
        Self { kind: content.name().to_owned(), space, key, what, outcome, repaired }
    }
}

/// The layouts of every spec there is a record of.
fn layouts(kv: &dyn Kv) -> Result<Layouts, ToolError> {
    let mut found = Layouts::new();
    meta::scan(kv, "spec/", &mut |key, frame| {
        let name = String::from_utf8_lossy(&key[b"spec/".len()..]).into_owned();
        let record = value::open(key, &frame).and_then(|json| serde_json::from_slice::<meta::SpecRecord>(&json).ok());
        found.insert(name, record.map(|record| record.shapes()));
    })?;
    Ok(found)
}
