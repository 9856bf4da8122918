//! Stage kinds for the tests of this folder: the graph's side of the real ones, without what they do.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::model::time::MILLISECOND;

use super::{
    Address, ByteSize, Complaint, ConfigNode, DurationText, Facts, Flow, Kind, Machine, ParsedConfig, Plan, Problem,
    Role, StageConfig, compile, parse_config,
};

pub(super) const MACHINE: Machine = Machine { memory_bytes: 8 << 30 };

/// The kinds of the design's table.
pub(super) static KINDS: [Kind; 8] = [
    Kind {
        max_instances: 16,
        parse: parse_config::<Ingest>,
        ..kind("grpc_ingest", Role::Source, None, Some(Flow::Ticks))
    },
    Kind {
        max_instances: 4,
        parse: parse_config::<Host>,
        ..kind("host_metrics", Role::Source, None, Some(Flow::Ticks))
    },
    Kind { unique: true, parse: parse_config::<Journal>, ..worker("journal", Flow::Ticks, Some(Flow::Ticks)) },
    kind("shard_router", Role::Router, Some(Flow::Ticks), Some(Flow::Ticks)),
    Kind { max_instances: 64, ..worker("aggregator", Flow::Ticks, Some(Flow::Bars)) },
    Kind { unique: true, ..worker("storage_writer", Flow::Bars, Some(Flow::Bars)) },
    worker("kafka_sink", Flow::Bars, None),
    Kind { unique: true, parse: parse_config::<Reaper>, ..worker("reaper", Flow::Bars, None) },
];

const fn kind(name: &'static str, role: Role, takes: Option<Flow>, gives: Option<Flow>) -> Kind {
    Kind { name, summary: "", role, takes, gives, max_instances: 1, unique: false, parse: parse_config::<Nothing> }
}

const fn worker(name: &'static str, takes: Flow, gives: Option<Flow>) -> Kind {
    kind(name, Role::Worker, Some(takes), gives)
}

/// The graph's side of the exporter to Kafka.
pub(super) fn exporter(config: &ConfigNode) -> Result<ParsedConfig, Vec<Problem>> {
    parse_config::<Nothing>(config)
}

pub(super) fn compile_text(text: &str) -> Result<Plan, Vec<Problem>> {
    compile("test.yaml", text, KINDS.iter(), exporter, &[], MACHINE)
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl StageConfig for Nothing {}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ingest {
    pub listen: Address,
    pub batch: Batch,
    pub max_message: ByteSize,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Batch {
    pub rows: u64,
    pub linger: DurationText,
}

impl Default for Ingest {
    fn default() -> Self {
        let listen = Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 9876)));
        Self { listen, batch: Batch::default(), max_message: ByteSize(16 << 20) }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { rows: 8192, linger: DurationText(2 * MILLISECOND) }
    }
}

impl StageConfig for Ingest {
    fn facts(&self) -> Facts {
        Facts { listens: vec![self.listen.0], batch_bytes: self.batch.rows * 64, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let late = self.batch.linger.0 == 0;
        late.then(|| ("batch.linger".into(), "must be longer than 0s".to_owned())).into_iter().collect()
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Host {
    every: Option<DurationText>,
}

impl StageConfig for Host {
    fn facts(&self) -> Facts {
        Facts { batch_bytes: 4 << 10, ..Facts::default() }
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Journal {
    commit: Commit,
    sync: Sync,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Commit {
    every: Option<DurationText>,
    bytes: Option<ByteSize>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sync {
    #[default]
    Always,
    Interval,
    Never,
}

impl StageConfig for Journal {
    fn facts(&self) -> Facts {
        Facts { memory: self.commit.bytes.map_or(4 << 20, |bytes| bytes.0) * 7, ..Facts::default() }
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reaper {
    every: Option<DurationText>,
    budget: SizeBudget,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SizeBudget {
    ticks: Option<ByteSize>,
    bars: Option<ByteSize>,
}

impl StageConfig for Reaper {
    fn facts(&self) -> Facts {
        let [ticks, bars] = [self.budget.ticks, self.budget.bars].map(|size| size.map_or(0, |size| size.0));
        Facts { disk: ticks + bars, ..Facts::default() }
    }
}
