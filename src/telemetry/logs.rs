//! Lines of the log on their way to a collector. A layer under `tracing` puts them into a bounded queue, as the log is the
//! whole process's; nothing is put there while nobody listens, and what does not fit is counted.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::model::TimeNs;
use crate::topology::{Signal, TelemetryPlan};

/// The most lines that wait.
const LINES: usize = 2048;
/// The most bytes of a text in a line.
const TEXT: usize = 4096;

/// Lines that wait.
static QUEUE: LazyLock<(flume::Sender<Line>, flume::Receiver<Line>)> = LazyLock::new(|| flume::bounded(LINES));
/// How many listen.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);
/// Lines that did not fit.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was written.
    pub at: TimeNs,
    /// How bad it is.
    pub level: Level,
    /// The module it is from.
    pub target: &'static str,
    /// What it says.
    pub message: String,
    /// What it is about.
    pub fields: Vec<(&'static str, Value)>,
    /// Trace and span it belongs to; 0 where it belongs to none.
    pub trace: (u128, u64),
}

/// Lets lines be queued as long as it lives.
pub struct Listener(());

/// Begins to listen.
pub fn listen() -> Listener {
    LISTENERS.fetch_add(1, Relaxed);
    Listener(())
}

/// Begins to listen where `plan` has the log pushed.
pub fn listen_for(plan: &TelemetryPlan) -> Option<Listener> {
    plan.collector(Signal::Logs).map(|_| listen())
}

impl Drop for Listener {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Relaxed);
    }
}

/// The lines that wait.
pub fn take() -> Vec<Line> {
    QUEUE.1.try_iter().collect()
}

/// How many lines did not fit since the process began.
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// The layer: everything at `info` and above that the log's filter lets through.
pub struct Layer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        if let Some(span) = context.span(id).filter(|_| seen.trace.0 != 0) {
            span.extensions_mut().insert(Within(seen.trace));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if LISTENERS.load(Relaxed) == 0 || *metadata.level() > Level::INFO {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        if seen.trace.0 == 0 {
            let within =
                |span: &tracing_subscriber::registry::SpanRef<'_, S>| span.extensions().get::<Within>().copied();
            let inner = context.event_scope(event).and_then(|mut scope| scope.find_map(|span| within(&span)));
            seen.trace = inner.map_or((0, 0), |within| within.0);
        }
        let Seen { message, fields, trace } = seen;
        let line = Line { at: now(), level: *metadata.level(), target: metadata.target(), message, fields, trace };
        if QUEUE.0.try_send(line).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
    }
}

/// The trace and span that a span of `tracing` stands for.
#[derive(Clone, Copy)]
struct Within((u128, u64));

/// The fields of an event or span.
#[derive(Default)]
struct Seen {
    message: String,
    fields: Vec<(&'static str, Value)>,
    trace: (u128, u64),
}

impl Seen {
    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => clip(text).clone_into(&mut self.message),
            "trace_id" => self.trace.0 = u128::from_str_radix(text, 16).unwrap_or(0),
            "span_id" => self.trace.1 = u64::from_str_radix(text, 16).unwrap_or(0),
            name => self.fields.push((name, Value::StringValue(clip(text).to_owned()))),
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::DoubleValue(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::IntValue(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field, &value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::BoolValue(value)));
    }
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT)]
}

fn now() -> TimeNs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| TimeNs::try_from(since.as_nanos()).unwrap_or(TimeNs::MAX))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// One test, as the queue is the whole process's.
    #[test]
    fn lines_wait_with_their_fields_and_trace_while_somebody_listens_and_what_does_not_fit_is_counted() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Layer), || {
            tracing::warn!("nobody listens");
            let _listener = listen();
            tracing::debug!("too little to tell");
            tracing::error!(stage = "write", instance = 3_u64, trace_id = "0a", span_id = "0b", "broken {}", 1);
            {
                let _batch = tracing::info_span!("batch", trace_id = "0c", span_id = "0d").entered();
                tracing::info!(late = true, "inside");
            }
            tracing::info!("{}", "ü".repeat(TEXT));
            let lines = take();
            let [broken, inside, long] = lines.as_slice() else { panic!("{lines:?}") };
            assert_eq!((broken.message.as_str(), broken.trace, broken.level), ("broken 1", (10, 11), Level::ERROR));
            let fields = [("stage", Value::StringValue("write".into())), ("instance", Value::IntValue(3))];
            assert_eq!(broken.fields, fields);
            assert_eq!((inside.message.as_str(), inside.trace), ("inside", (12, 13)));
            assert_eq!((inside.fields.as_slice(), long.trace), (&[("late", Value::BoolValue(true))][..], (0, 0)));
            assert!(long.message.len() <= TEXT && broken.at > 0 && broken.target.contains("logs"));
            let before = dropped();
            (0..LINES + 7).for_each(|line| tracing::info!("{line}"));
            assert_eq!((take().len(), dropped() - before), (LINES, 7));
        });
    }
}
