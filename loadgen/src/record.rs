//! The record of what was acknowledged: one line of JSON each, written before anything else is done with it.
//!
//! Whatever is killed, generator or server: what a line says, the server has said. Nothing of the ticks themselves is
//! in it, for they are a pure function of what the first line says.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    plan::{Limit, Plan},
    profile::Profile,
    units::Nanos,
};

/// One line of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line: everything the ticks depend on.
    Run(Box<Run>),
    /// `barline.v1`: a batch was acknowledged.
    Ack(Ack),
    /// `tikr.v1`: a stream of these ticks was replied to, so many of them taken.
    Stream(Span, u64),
    /// A stream broke, and why; these ticks will be sent again.
    Broke(Span, String),
    /// A connection has sent so many ticks, all are acknowledged, and no more will come.
    End {
        /// The connection.
        connection: u64,
        /// Ticks it has sent.
        ticks: u64,
    },
}

/// What makes a run's ticks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The run's name.
    pub name: String,
    /// The profile with everything that was overridden.
    pub profile: Profile,
    /// When it ends.
    pub limit: Limit,
    /// When it began.
    pub started: Nanos,
}

/// An acknowledged batch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ack {
    /// The connection.
    pub connection: u64,
    /// The batch's id.
    pub batch: u64,
    /// Ticks in it.
    pub ticks: u64,
    /// Ticks the server took.
    pub accepted: u64,
    /// Ticks it had taken before.
    pub duplicate: u64,
}

/// Some ticks of a connection, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The connection.
    pub connection: u64,
    /// The first one.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

/// Writes a record, or nothing where none was asked for.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Arc<Mutex<File>>>);

/// What is known of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// `barline.v1`: batches up to this id are acknowledged.
    pub batch: u64,
    /// `tikr.v1`: ticks up to this number are acknowledged.
    pub ticks: u64,
    /// Ticks the server said it took; what it had taken before is not among them, for that it counts refused ticks too.
    pub taken: u64,
    /// Ticks sent more than once, one entry for each further time.
    pub again: Vec<Range<u64>>,
    /// How many ticks were sent, where the connection came to its end.
    pub sent: Option<u64>,
}

/// A record, read.
#[derive(Debug)]
pub struct Record {
    /// The run.
    pub plan: Arc<Plan>,
    /// What is known of its connections.
    pub connections: Vec<Known>,
}

impl Span {
    /// The ticks `span` of `connection`.
    pub fn new(connection: u64, span: &Range<u64>) -> Self {
        Self { connection, from: span.start, to: span.end }
    }
}

impl Recorder {
    /// A new record of `plan` in `file`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(file: &Path, plan: &Plan) -> Result<Self, String> {
        let created = File::create(file).map_err(|e| format!("--record {}: {e}", file.display()))?;
        let recorder = Self(Some(Arc::new(Mutex::new(created))));
        recorder.write(&Line::Run(Box::new(Run {
            name: plan.run.clone(),
            profile: plan.profile.clone(),
            limit: plan.limit,
            started: plan.started,
        })))?;
        Ok(recorder)
    }

    /// Hands a line to the operating system, in one piece.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, line: &Line) -> Result<(), String> {
        let Some(file) = &self.0 else { return Ok(()) };
        let text = serde_json::to_string(line).map_err(|e| format!("--record: {e}"))? + "\n";
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(|e| format!("--record: cannot write: {e}"))
    }
}

impl Record {
    /// Reads the record `file`; a last line that was torn off is passed over.
    ///
    /// # Errors
    /// A file that cannot be read or is no record.
    pub fn read(file: &Path) -> Result<Self, String> {
        let place = |e: String| format!("--record {}: {e}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| place(e.to_string()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines().enumerate().map(|(number, line)| {
            serde_json::from_str::<Line>(line).map_err(|e| place(format!("line {}: {e}", number + 1)))
        });
        let Some(Line::Run(run)) = lines.next().transpose()? else {
            return Err(place("does not begin with a run, was it written by loadgen run --record?".to_owned()));
        };
        let plan = Plan::new(run.profile, run.limit, run.started).map_err(place)?;
        if plan.run != run.name {
            return Err(place(format!("is of run {}, its times make it {}", run.name, plan.run)));
        }
        let mut connections = BTreeMap::new();
        for line in lines {
            note(&mut connections, line?);
        }
        let known = (0..plan.connections()).map(|number| connections.remove(&number).unwrap_or_default());
        Ok(Self { connections: known.collect(), plan: Arc::new(plan) })
    }
}

fn note(connections: &mut BTreeMap<u64, Known>, line: Line) {
    let connection = match &line {
        Line::Run(_) => return,
        Line::Ack(ack) => ack.connection,
        Line::Stream(span, _) | Line::Broke(span, _) => span.connection,
        Line::End { connection, .. } => *connection,
    };
    let known = connections.entry(connection).or_default();
    match line {
        Line::Run(_) => {}
        Line::Ack(ack) => {
            known.batch = known.batch.max(ack.batch);
            known.taken += ack.accepted;
        }
        Line::Stream(span, accepted) => {
            known.ticks = known.ticks.max(span.to);
            known.taken += accepted;
        }
        Line::Broke(span, _) => known.again.push(span.from..span.to),
        Line::End { ticks, .. } => known.sent = Some(ticks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SECOND;

    #[test]
    fn a_record_is_read_back_and_its_torn_last_line_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        for name in ["market", "network", "asic", "host"] {
            let overrides =
                ["connections=2", "late={fraction: 0.1, by: 1500ms}", "burst={every: 1s, factor: 2.5}", "rate=1.5M"];
            let profile = Profile::load(name, &overrides.map(str::to_owned)).unwrap();
            let plan = Plan::new(profile, Limit::Ticks(1_000), 1_700_000_000 * SECOND + 5).unwrap();
            let recorder = Recorder::create(&file, &plan).unwrap();
            for batch in 1..=3 {
                let ack = Ack { connection: 1, batch, ticks: 10, accepted: 7, duplicate: 2 };
                recorder.write(&Line::Ack(ack)).unwrap();
            }
            recorder.write(&Line::Broke(Span::new(1, &(30..50)), "gone".to_owned())).unwrap();
            recorder.write(&Line::Stream(Span::new(0, &(0..20)), 19)).unwrap();
            recorder.write(&Line::End { connection: 1, ticks: 50 }).unwrap();
            let mut text = std::fs::read_to_string(&file).unwrap();
            text += "{\"ack\":{\"connection\":1,\"ba";
            std::fs::write(&file, text).unwrap();
            let record = Record::read(&file).unwrap();
            assert_eq!(format!("{:?}", record.plan), format!("{plan:?}"));
            let tikr = Known { ticks: 20, taken: 19, ..Known::default() };
            let again = std::iter::once(30..50).collect();
            let native = Known { batch: 3, taken: 21, again, sent: Some(50), ..Known::default() };
            assert_eq!(record.connections, [tikr, native]);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        for (text, said) in [("", "does not begin with a run"), ("{\"no\": 1}\n", "line 1")] {
            std::fs::write(&file, text).unwrap();
            assert!(Record::read(&file).unwrap_err().contains(said));
        }
    }
}
