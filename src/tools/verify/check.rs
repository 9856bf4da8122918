//! What a sound value looks like, kind by kind.

use std::collections::HashMap;

use bytes::Bytes;

use crate::codec::block::{Block, BlockHeader};
use crate::model::SeriesKey;
use crate::spec::Accumulator;
use crate::store::follower::{CURSOR, FollowerRecord, REFUSED};
use crate::store::keys::{self, PartitionName};
use crate::store::meta;
use crate::store::{Family, Refused, SortedKey, bar_bytes, is_sound_record, value};
use crate::window::state;

/// What a space holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Series,
    Block,
    Side,
    Sorted,
    Bar,
    Meta,
    Cursor,
    Refused,
    Outbox,
    Inbox,
    Quarantine,
    Other,
}

/// Per spec, the layouts its bars may be in; `None` where its record is damaged.
pub(super) type Layouts = HashMap<String, Option<Vec<Vec<Accumulator>>>>;

/// What a sound value says of others.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Numbers of the series it names.
    pub series: Vec<u32>,
    /// The arrival numbers of a block: the first, and how many.
    pub offsets: Option<(u64, u32)>,
}

impl Content {
    pub const ALL: [Self; 12] = [
        Self::Series,
        Self::Block,
        Self::Side,
        Self::Sorted,
        Self::Bar,
        Self::Meta,
        Self::Cursor,
        Self::Refused,
        Self::Outbox,
        Self::Inbox,
        Self::Quarantine,
        Self::Other,
    ];

    /// By the name of the space; of records by their own.
    pub fn of(space: &str, key: &[u8]) -> Self {
        match space.split('/').next().unwrap_or_default() {
            "series" => Self::Series,
            "ticks" => Self::Block,
            "side" => Self::Side,
            "sorted" => Self::Sorted,
            "bars" => Self::Bar,
            "outbox" | "contents" => Self::Outbox,
            "inbox" => Self::Inbox,
            keys::META if key.starts_with(CURSOR.as_bytes()) => Self::Cursor,
            keys::META if key.starts_with(REFUSED.as_bytes()) => Self::Refused,
            keys::META => Self::Meta,
            keys::QUARANTINE => Self::Quarantine,
            _ => Self::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Block => "block",
            Self::Side => "side",
            Self::Sorted => "sorted",
            Self::Bar => "bar",
            Self::Meta => "meta",
            Self::Cursor => "cursor",
            Self::Refused => "refused",
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
            Self::Quarantine => "quarantine",
            Self::Other => "other",
        }
    }
}

/// Checks one value.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(space: &str, key: &[u8], frame: &Bytes, layouts: &Layouts) -> Result<Facts, String> {
    if frame.is_empty() {
        return Err("it cannot be read from the disk".to_owned());
    }
    let payload = value::open(key, frame).ok_or("its checksum does not match")?;
    match Content::of(space, key) {
        Content::Series => series(key, &payload),
        Content::Block => block(key, &payload),
        Content::Side => side(key, &payload),
        Content::Bar => bar(space, key, &payload, layouts),
        Content::Meta => record(key, frame),
        Content::Cursor => cursor(key, frame),
        Content::Refused => refused(&payload),
        Content::Sorted => sorted(key, &payload),
        Content::Inbox => claim(key),
        Content::Outbox | Content::Quarantine | Content::Other => Ok(Facts::default()),
    }
}

fn series(key: &[u8], payload: &[u8]) -> Result<Facts, String> {
    keys::parse_series(key).ok_or("its key is no series number")?;
    let is_lost = payload == [0];
    let named = payload.strip_prefix(&[1]).and_then(SeriesKey::from_bytes);
    if is_lost || named.is_some() { Ok(Facts::default()) } else { Err("it is no list of dimensions".to_owned()) }
}

fn block(key: &[u8], payload: &[u8]) -> Result<Facts, String> {
    let block = Block::decode(payload).map_err(|error| error.to_string())?;
    agrees(key, 28, &block.header)?;
    Ok(Facts { offsets: Some((block.header.offset, block.header.rows as u32)), series: distinct(block.series) })
}

fn side(key: &[u8], payload: &[u8]) -> Result<Facts, String> {
    let block = Block::decode(payload).map_err(|error| error.to_string())?;
    agrees(key, 36, &block.header)?;
    Ok(Facts { offsets: None, series: distinct(block.series) })
}

fn sorted(key: &[u8], payload: &[u8]) -> Result<Facts, String> {
    let told = SortedKey::parse(key).ok_or("its key is no block's")?;
    let block = Block::decode(payload).map_err(|error| error.to_string())?;
    let BlockHeader { rows, min_time, max_time, min_series, max_series, .. } = block.header;
    let found = (rows as u32, min_time, max_time, min_series, max_series);
    if found != (told.rows, told.min_time, told.max_time, told.min_series, told.max_series) {
        return Err("it is another block than its key says".to_owned());
    }
    Ok(Facts { offsets: None, series: distinct(block.series) })
}

/// Whether a block is what its key says.
fn agrees(key: &[u8], len: usize, header: &BlockHeader) -> Result<(), String> {
    let facts = keys::parse_block(key).filter(|_| key.len() == len).ok_or("its key is no block's")?;
    let told = (facts.offset, facts.rows as usize, facts.min_time, facts.max_time);
    let found = (header.offset, header.rows, header.min_time, header.max_time);
    if told == found || header.rows == 0 { Ok(()) } else { Err("it is another block than its key says".to_owned()) }
}

fn distinct(mut series: Vec<u32>) -> Vec<u32> {
    series.sort_unstable();
    series.dedup();
    series
}

fn bar(space: &str, key: &[u8], payload: &[u8], layouts: &Layouts) -> Result<Facts, String> {
    let name = PartitionName::parse(space).filter(|name| name.family == Family::Bars);
    let name = name.ok_or("its space is no partition of bars")?;
    let mut words = Vec::new();
    let (head, layout) = bar_bytes::decode(key, payload, &mut words).ok_or("it is no bar")?;
    if let Some(known) = layouts.get(name.spec).ok_or("its spec has no record of layouts")? {
        let accumulators = known.get(layout).ok_or_else(|| format!("it is in the unknown layout {layout}"))?;
        if !state::fits(accumulators, &words) {
            return Err("its state is none of its layout".to_owned());
        }
    }
    Ok(Facts { series: vec![head.series.0], offsets: None })
}

/// How far a sink has come with the bars of a spec.
fn cursor(key: &[u8], frame: &Bytes) -> Result<Facts, String> {
    FollowerRecord::read(key, frame).ok_or("it is no cursor")?;
    Ok(Facts::default())
}

/// A bar its broker will never take.
fn refused(payload: &[u8]) -> Result<Facts, String> {
    serde_json::from_slice::<Refused>(payload).map_err(|error| format!("it is no refused bar: {error}"))?;
    Ok(Facts::default())
}

/// Messages a source claimed, under the claim's number.
fn claim(key: &[u8]) -> Result<Facts, String> {
    if key.len() == 8 { Ok(Facts::default()) } else { Err("its key is no claim's number".to_owned()) }
}

/// A record of the store about itself.
fn record(key: &[u8], frame: &Bytes) -> Result<Facts, String> {
    let is_checkpoint = key.starts_with(b"checkpoint/");
    let is_sound = is_sound_record(key, frame) && (!is_checkpoint || meta::read_checkpoint(key, frame).is_some());
    if is_sound { Ok(Facts::default()) } else { Err("it is no such record".to_owned()) }
}
