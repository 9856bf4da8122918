//! Every instrument there is: name, unit, description, kind and the attributes its points carry. Exporters, documents,
//! dashboards and alert rules are all held against this table.

use serde::{Deserialize, Serialize};

/// What is told of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrument {
    /// Its name, as OpenTelemetry writes names.
    pub name: &'static str,
    /// Its unit in UCUM; braces annotate what is counted.
    pub unit: &'static str,
    /// What it tells, for people.
    pub description: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// The attributes of its points, besides `topology`.
    pub attributes: &'static [&'static str],
}

/// How the values of an instrument behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only grows, from 0 when the process, or what it continues, began.
    Counter,
    /// A figure of the moment.
    Gauge,
    /// How often which value occurred.
    Histogram,
}

impl Kind {
    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The attributes of what the shell measures of every instance.
const INSTANCE: &[&str] = &["stage", "instance"];
const SPEC: &[&str] = &["spec"];
const SPEC_REASON: &[&str] = &["spec", "reason"];
const SINK: &[&str] = &["stage", "spec"];
const DIRECTION: &[&str] = &["stage", "instance", "direction"];

/// Declares the instruments, and the table of them all in the order written.
macro_rules! instruments {
    ($($id:ident = $kind:ident $name:literal $unit:literal $attributes:expr, $description:literal;)*) => {
        $(
            #[doc = $description]
            pub const $id: Instrument = Instrument {
                name: $name, unit: $unit, description: $description, kind: Kind::$kind, attributes: $attributes,
            };
        )*
        /// Every instrument.
        pub const TABLE: &[Instrument] = &[$($id),*];
    };
}

instruments! {
    UPTIME = Gauge "barline.process.uptime" "s" &[], "Time since the process started.";
    UP = Gauge "barline.stage.up" "1" &["stage", "instance", "kind"], "1 while the instance is at work or on standby, 0 while it starts, retries, drains or has ended.";
    ACTIVE = Gauge "barline.stage.active" "1" INSTANCE, "1 while the instance has a share of its stage's work, 0 while it is on standby; their sum is the number of active instances.";
    LAG = Gauge "barline.stage.lag" "s" INSTANCE, "Age of the oldest envelope that waits for the instance or is being worked on, or of the oldest bar that waits in the outbox for the sink.";
    TIME = Counter "barline.stage.time" "s" &["stage", "instance", "phase"], "Time by what the instance did: busy, idle or backpressured; their rates add up to 1.";
    BATCHES = Counter "barline.stage.batches" "{batch}" DIRECTION, "Batches and signals taken in and sent on.";
    ITEMS = Counter "barline.stage.items" "{item}" DIRECTION, "Ticks or bars taken in and sent on.";
    QUEUE = Histogram "barline.stage.queue.duration" "s" INSTANCE, "How long batches waited in the mailbox.";
    HANDLING = Histogram "barline.stage.handling.duration" "s" INSTANCE, "How long the stage worked on a batch.";
    RESTARTS = Counter "barline.stage.restarts" "{restart}" INSTANCE, "How often the stage was made anew after a failure.";
    POISONED = Counter "barline.stage.poisoned" "{batch}" INSTANCE, "Batches given up because they made the stage fail.";
    DEPTH = Gauge "barline.mailbox.depth" "{envelope}" INSTANCE, "Envelopes waiting in all lanes into the instance.";
    CAPACITY = Gauge "barline.mailbox.capacity" "{envelope}" INSTANCE, "The most envelopes all lanes into the instance hold.";
    PEAK = Gauge "barline.mailbox.lane.peak" "{envelope}" INSTANCE, "The most envelopes that have waited in any one lane at once.";
    ACCEPTED = Counter "barline.ledger.accepted" "{tick}" SPEC, "Ticks taken.";
    REJECTED = Counter "barline.ledger.rejected" "{tick}" SPEC_REASON, "Ticks refused at the door.";
    DUPLICATE = Counter "barline.ledger.duplicate" "{tick}" SPEC, "Ticks of batches that had been taken before.";
    IN_BARS = Counter "barline.ledger.in_bars" "{tick}" SPEC, "Ticks in stored bars of the finest granularity.";
    DROPPED = Counter "barline.ledger.dropped" "{tick}" SPEC_REASON, "Ticks taken and then given up.";
    OPEN = Gauge "barline.ledger.open" "{tick}" SPEC, "Ticks in open windows.";
    IN_FLIGHT = Gauge "barline.ledger.in_flight" "{tick}" SPEC, "Ticks taken that are in no bar, in no open window and not dropped; 0 at rest.";
    SERIES = Gauge "barline.series.known" "{series}" SPEC, "Series that have a number.";
    SERIES_REFUSED = Counter "barline.series.refused" "{series}" SPEC, "How often a further series met the cardinality limit.";
    WINDOWS = Gauge "barline.windows.open" "{window}" INSTANCE, "Open windows of all granularities.";
    WATERMARK = Gauge "barline.watermark.delay" "s" INSTANCE, "How far the newest event time the aggregator has seen is behind the wall clock.";
    COMMIT = Histogram "barline.store.commit.duration" "s" &["durability"], "How long commits took: synced to the device, or handed to the system (process).";
    JOURNAL_WRITTEN = Counter "barline.journal.written" "By" &[], "Bytes of compressed ticks committed.";
    SIZE = Gauge "barline.store.size" "By" &["spec", "data"], "Bytes kept, by what is kept: ticks, late or bars.";
    QUARANTINED = Counter "barline.store.quarantined" "{value}" &["data"], "Values found corrupt and put aside, ever.";
    TICK_TO_ACK = Histogram "barline.tick.ack.delay" "s" &[], "From the time of a batch's first tick to the batch's acknowledgement.";
    WINDOW_TO_STORED = Histogram "barline.bar.stored.delay" "s" &[], "From the end of a window to its bar being stored.";
    OUTBOX_DEPTH = Gauge "barline.outbox.depth" "{bar}" SINK, "Bars in the outbox that the sink has yet to send.";
    OUTBOX_AGE = Gauge "barline.outbox.age" "s" SINK, "Age of the oldest bar that waits in the outbox for the sink; 0 when none does.";
    OUTBOX_BYTES = Gauge "barline.outbox.size" "By" SINK, "Bytes of the outbox that are kept for the sink.";
    SPOOL = Gauge "barline.spool.utilization" "1" SINK, "Share of the sink's spool that is taken, by bytes or by age, whichever is more.";
    OUTBOX_BARS = Counter "barline.outbox.bars" "{bar}" &["stage", "spec", "fate"], "What became of the sink's bars: delivered, quarantined, skipped, or given up for a reason.";
    LINK = Gauge "barline.sink.up" "1" &["stage"], "1 while the sink reaches its broker.";
    SENT_UNACKED = Gauge "barline.sink.in_flight" "{record}" &["stage"], "Records handed over whose end is not known.";
    DELIVERY = Histogram "barline.sink.delivery.duration" "s" &["stage", "step"], "How long bars took from step to step: window_to_commit, commit_to_sent, sent_to_acked, window_to_acked.";
    CONNECTIONS = Gauge "barline.server.connections" "{connection}" &["listener"], "Open connections to a listener: http, metrics, or the stage that listens.";
    REFUSED = Counter "barline.server.refused" "{refusal}" &["reason"], "Calls refused (unauthenticated, forbidden) and connections closed (full, evicted, slow, handshake).";
    EXPORTS = Counter "barline.telemetry.exports" "{export}" &["signal", "destination", "outcome"], "Pushes of metrics, traces and logs to otlp (a collector) and kafka, by what became of them: sent or dropped.";
    SPANS_DROPPED = Counter "barline.telemetry.spans.dropped" "{span}" &[], "Spans that nobody fetched in time.";
    LOGS_DROPPED = Counter "barline.telemetry.logs.dropped" "{record}" &[], "Lines of the log that came faster than they could be pushed.";
}

/// The instrument of this name.
pub fn find(name: &str) -> Option<&'static Instrument> {
    TABLE.iter().find(|instrument| instrument.name == name)
}

/// The table as Markdown, as `docs/telemetry.md` has it.
pub fn markdown() -> String {
    let mut text = String::from("| metric | unit | kind | attributes | what it tells |\n|---|---|---|---|---|\n");
    for Instrument { name, unit, description, kind, attributes } in TABLE {
        let attributes = attributes.join(", ");
        text += &format!("| `{name}` | `{unit}` | {} | {attributes} | {description} |\n", kind.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_written_as_the_conventions_say() {
        let names: BTreeSet<_> = TABLE.iter().map(|instrument| instrument.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(TABLE.len() < 60, "{} families", TABLE.len());
        let legal = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
        for Instrument { name, description, .. } in TABLE {
            assert!(name.starts_with("barline.") && name.chars().all(legal), "{name}");
            assert!(description.ends_with('.'), "{name}: {description}");
        }
    }

    #[test]
    fn the_document_has_this_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/telemetry.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document.contains(&markdown()), "docs/telemetry.md should have this table:\n\n{}", markdown());
    }
}
