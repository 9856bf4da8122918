//! The raw ticks of a run that a server holds.

use std::{collections::HashMap, hash::BuildHasher};

use barline_proto::barline::{QueryTicksRequest, Tick as Shown, barline_client::BarlineClient, value::Kind};
use foldhash::fast::FixedState;

use crate::{
    connect::Channel,
    generate::{Fate, Tick},
    naive::NaiveBars,
    plan::Plan,
    profile::MAX_FIELDS,
};

/// A tick by what tells it from others: its series, its place in time, and a hash of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The series' number.
    pub series: u32,
    /// Event time.
    pub timestamp: i64,
    /// Orders ticks of the same time.
    pub sequence: u32,
    /// Hash of the values that are there.
    pub values: u64,
}

/// The ticks of one run, and the bars they add up to.
#[derive(Debug)]
pub struct Stored {
    /// Every tick, sorted.
    pub ticks: Vec<Key>,
    /// What they add up to.
    pub bars: NaiveBars,
}

impl Key {
    /// The key of `tick`.
    pub fn of(tick: &Tick) -> Self {
        let present = (0..MAX_FIELDS).filter(|field| tick.present >> field & 1 == 1);
        let values: Vec<(usize, i64)> = present.map(|field| (field, tick.values[field])).collect();
        Self {
            series: tick.series,
            timestamp: tick.timestamp,
            sequence: tick.sequence,
            values: FixedState::with_seed(0).hash_one(values),
        }
    }
}

impl Stored {
    /// Reads every tick of the run of `plan`; those of other runs are passed over.
    ///
    /// # Errors
    /// The call failed; a metric of the profile that cannot be computed; a tick with a field that was never sent.
    pub async fn read(client: &mut BarlineClient<Channel>, plan: &Plan) -> Result<Self, String> {
        let series: HashMap<String, u32> =
            (0..plan.profile.series.0).map(|number| (plan.dimensions.key(number), number as u32)).collect();
        let mut stored = Self { ticks: Vec::new(), bars: NaiveBars::new(&plan.profile)? };
        let request = QueryTicksRequest { spec: plan.profile.spec.clone(), ..QueryTicksRequest::default() };
        let broke = |s: tonic::Status| format!("QueryTicks: {:?}: {}", s.code(), s.message());
        let mut chunks = client.query_ticks(request).await.map_err(broke)?.into_inner();
        while let Some(chunk) = chunks.message().await.map_err(broke)? {
            for shown in &chunk.ticks {
                let own = plan.dimensions.key_of(&shown.dimensions).and_then(|key| series.get(&key));
                let Some(series) = own else { continue };
                let tick = read(shown, *series, plan).map_err(|e| format!("QueryTicks: {e}\n{shown:#?}"))?;
                stored.ticks.push(Key::of(&tick));
                stored.bars.add(&tick);
            }
        }
        stored.ticks.sort_unstable();
        Ok(stored)
    }
}

/// A stored tick as the generator has it.
fn read(shown: &Shown, series: u32, plan: &Plan) -> Result<Tick, String> {
    let mut tick = Tick {
        series,
        timestamp: shown.timestamp_ns,
        sequence: shown.sequence,
        fate: Fate::Accepted,
        present: 0,
        values: [0; MAX_FIELDS],
    };
    for (name, value) in &shown.fields {
        let field = plan.profile.fields.iter().position(|field| field.name == *name);
        let field = field.ok_or_else(|| format!("field {name:?} was never sent"))?;
        let value = match value.kind {
            Some(Kind::Int(value)) => Some(value),
            Some(Kind::Uint(value)) => i64::try_from(value).ok(),
            Some(Kind::Float(value)) => {
                let divisor = plan.profile.divisor(field);
                let whole = (value * divisor).round();
                (whole / divisor == value).then_some(whole as i64)
            }
            None => None,
        };
        tick.values[field] = value.ok_or_else(|| format!("field {name:?} has a value that was never sent"))?;
        tick.present |= 1 << field;
    }
    Ok(tick)
}
