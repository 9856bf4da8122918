//! One run, from connecting to the verdict.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use barline_proto::barline::barline_client::BarlineClient;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    connect,
    feed::Feed,
    in_flight::InFlight,
    ledger::Counts,
    meter::{self, Meter},
    native,
    pace::Pacer,
    plan::{Limit, Plan},
    profile::{Profile, Protocol},
    progress,
    report::{Cpu, Report, Ticks},
    tikr::{self, Reply},
    units::Nanos,
    verify::Expectation,
    wire::Pool,
};

/// Why a run has no result.
#[derive(Debug)]
pub enum Failure {
    /// It was asked for something impossible.
    Usage(String),
    /// The server is not there, broke the stream or answered with an error.
    Connection(String),
}

/// What is asked for beyond the profile.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub address: String,
    /// When the run ends.
    pub limit: Limit,
    /// Whether everything is encoded before the run begins.
    pub prebuild: bool,
    /// Whether bars and ledger are verified.
    pub verify: bool,
    /// How long the server may take to come to rest.
    pub settle: Duration,
}

/// Frames between the producing thread and the transport: enough to keep both busy.
const HANDED_OVER: usize = 4;

/// What came of one connection.
struct Outcome {
    sent: u64,
    /// When its last message was handed over, since the run's beginning.
    sent_at: Nanos,
    reply: Reply,
}

/// Runs `profile`, checked.
///
/// # Errors
/// See [`Failure`].
pub async fn run(profile: Profile, options: &Options) -> Result<Report, Failure> {
    let mut channels = Vec::new();
    for _ in 0..profile.connections.0 {
        channels.push(connect::connect(&options.address).await.map_err(Failure::Connection)?);
    }
    let control = connect::connect(&options.address).await.map_err(Failure::Connection)?;
    let mut client = connect::barline(control);
    let before = if options.verify { Some(rest(&mut client, &profile, options).await?) } else { None };

    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Nanos);
    let plan = Arc::new(Plan::new(profile, options.limit, started).map_err(Failure::Usage)?);
    let feeds = feeds(&plan, options.prebuild);
    let cpu = meter::cpu_seconds();
    let meter = Arc::new(Meter::new(Pacer::start()));
    let outcomes = send(&plan, &meter, channels, feeds).await.map_err(Failure::Connection)?;
    let cpu = cpu.and_then(|before| Some(meter::cpu_seconds()? - before));

    let mut report = report(&plan, &meter, &outcomes, cpu);
    if let Some(before) = before {
        let sent: Vec<u64> = outcomes.iter().map(|outcome| outcome.sent).collect();
        let expected = Expectation::regenerate(&plan, &sent).map_err(Failure::Usage)?;
        let verdict = expected.verify(&mut client, &plan, &before, options.settle).await;
        report.verify = Some(verdict.map_err(Failure::Connection)?);
    }
    Ok(report)
}

/// The ledger at rest before the run, so that what happens in it is the run's doing.
async fn rest(client: &mut BarlineClient<Channel>, profile: &Profile, options: &Options) -> Result<Counts, Failure> {
    let counts = Counts::at_rest(client, &profile.spec, options.settle).await;
    counts.map_err(|e| Failure::Connection(format!("before the run: {e}")))
}

/// A feed and the pool its buffers come from, per connection.
fn feeds(plan: &Arc<Plan>, prebuild: bool) -> Vec<(Feed, Pool)> {
    let feed = |connection| {
        let pool = Pool::default();
        let mut feed = Feed::new(plan, connection, pool.clone());
        if prebuild {
            feed.prebuild();
        }
        (feed, pool)
    };
    (0..plan.connections()).map(feed).collect()
}

/// Sends all feeds at once, each on its own channel, and waits for the server's last word on each.
async fn send(
    plan: &Arc<Plan>,
    meter: &Arc<Meter>,
    channels: Vec<Channel>,
    feeds: Vec<(Feed, Pool)>,
) -> Result<Vec<Outcome>, String> {
    let mut connections = JoinSet::new();
    for (number, (channel, (feed, pool))) in channels.into_iter().zip(feeds).enumerate() {
        let (plan, meter) = (plan.clone(), meter.clone());
        connections.spawn(async move { (number, connection(&plan, meter, channel, feed, pool).await) });
    }
    let progress = tokio::spawn(progress::show(meter.clone(), plan.ticks));
    let mut outcomes = BTreeMap::new();
    while let Some(joined) = connections.join_next().await {
        let (number, outcome) = joined.map_err(|e| format!("a connection's task ended: {e}"))?;
        outcomes.insert(number, outcome.map_err(|e| format!("connection {number}: {e}"))?);
    }
    progress.abort();
    // The bar is cleared when its future is dropped, which must be before anything else is printed.
    let _ = progress.await;
    Ok(outcomes.into_values().collect())
}

/// Sends one feed on one channel.
async fn connection(
    plan: &Plan,
    meter: Arc<Meter>,
    channel: Channel,
    feed: Feed,
    pool: Pool,
) -> Result<Outcome, String> {
    let (sender, frames) = mpsc::channel(HANDED_OVER);
    let columnar = plan.profile.protocol == Protocol::Barline;
    let in_flight = columnar.then(|| Arc::new(InFlight::new(plan.profile.in_flight.0 as usize)));
    // Named, so that a profiler tells generating from sending.
    let producer = thread::Builder::new().name("generate".to_owned()).spawn({
        let (pacer, in_flight) = (meter.pacer(), in_flight.clone());
        move || {
            let sent = feed.run(pacer, &sender, in_flight.as_deref());
            (sent, pacer.elapsed())
        }
    });
    let producer = producer.map_err(|e| format!("cannot start a thread: {e}"))?;
    let reply = match in_flight {
        None => tikr::send(channel, frames, meter, pool).await,
        Some(in_flight) => native::send(channel, frames, in_flight, meter, pool).await,
    }?;
    let produced = tokio::task::spawn_blocking(move || producer.join()).await;
    let (sent, sent_at) = produced.map_err(|e| e.to_string())?.map_err(|_| "the generator panicked".to_owned())?;
    Ok(Outcome { sent, sent_at, reply })
}

fn report(plan: &Plan, meter: &Meter, outcomes: &[Outcome], cpu: Option<f64>) -> Report {
    let mut rejected = BTreeMap::new();
    for (reason, count) in outcomes.iter().flat_map(|outcome| &outcome.reply.rejected) {
        *rejected.entry(reason.clone()).or_default() += count;
    }
    let sent: u64 = outcomes.iter().map(|outcome| outcome.sent).sum();
    let accepted: u64 = outcomes.iter().map(|outcome| outcome.reply.accepted).sum();
    let unaccounted = sent as i64 - accepted as i64 - rejected.values().sum::<u64>() as i64;
    let end = outcomes.iter().map(|outcome| outcome.reply.at).max().unwrap_or(0);
    let sent_at = outcomes.iter().map(|outcome| outcome.sent_at).max().unwrap_or(0);
    let seconds = (end as f64 / 1e9).max(1e-9);
    Report {
        seconds,
        ticks_per_second: accepted as f64 / seconds,
        megabytes_per_second: meter.bytes() as f64 / seconds / 1e6,
        bytes_per_tick: meter.bytes() as f64 / sent.max(1) as f64,
        send_latency: meter.send_latency(),
        ack_latency: meter.ack_latency(),
        final_ack_ms: (end - sent_at) as f64 / 1e6,
        generator_cpu: cpu.map(|seconds| Cpu { seconds, ns_per_tick: seconds * 1e9 / sent.max(1) as f64 }),
        ..Report::of(plan, Ticks { sent, accepted, rejected, unaccounted })
    }
}
