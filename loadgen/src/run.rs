//! One run, from connecting to the verdict.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use barline_proto::barline::barline_client::BarlineClient;
use tokio::task::JoinSet;

use crate::{
    connect::{self, Channel, Server},
    connection::{Connection, Tally},
    feed::{Feed, Seed, Start},
    ledger::Counts,
    link::Link,
    meter::{self, Meter},
    pace::Pacer,
    plan::{Limit, Plan},
    profile::{Profile, Protocol},
    progress,
    record::{Known, Record, Recorder},
    report::{Again, Cpu, Report, Ticks},
    units::Nanos,
    verify::{Expectation, Verdict},
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
    pub server: Server,
    /// When the run ends.
    pub limit: Limit,
    /// Whether everything is encoded before the run begins.
    pub prebuild: bool,
    /// Whether bars and ledger are verified.
    pub verify: bool,
    /// How long the server may take to come to rest.
    pub settle: Duration,
    /// How long a connection is tried again after it broke.
    pub reconnect: Duration,
    /// The most ticks of a stream of `tikr.v1`; `None` for all of a connection's in one.
    pub stream_ticks: Option<u64>,
    /// What the producer ids begin with; `None` for one of its own for every run.
    pub producer: Option<String>,
    /// Where to keep what was acknowledged.
    pub record: Option<PathBuf>,
    /// Ends the run early.
    pub stop: Stop,
}

impl Options {
    /// A run that nothing further is asked of, as patient as the command line is by default.
    pub fn new(server: Server, limit: Limit) -> Self {
        Self {
            server,
            limit,
            prebuild: false,
            verify: false,
            settle: Duration::from_secs(30),
            reconnect: Duration::from_secs(60),
            stream_ticks: None,
            producer: None,
            record: None,
            stop: Stop::default(),
        }
    }
}

/// Ends a run early when it is set: what was sent is still waited for.
pub type Stop = Arc<AtomicBool>;

/// Runs `profile`, checked.
///
/// # Errors
/// See [`Failure`].
pub async fn run(profile: Profile, options: &Options) -> Result<Report, Failure> {
    let mut channels = Vec::new();
    for _ in 0..profile.connections.0 {
        channels.push(connect::connect(&options.server).await.map_err(Failure::Connection)?);
    }
    let control = connect::connect(&options.server).await.map_err(Failure::Connection)?;
    let mut client = connect::barline(control);
    let before = if options.verify { Some(rest(&mut client, &profile, options).await?) } else { None };

    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Nanos);
    let plan = Arc::new(Plan::new(profile, options.limit, started).map_err(Failure::Usage)?);
    let record = options.record.as_deref().map(|file| Recorder::create(file, &plan)).transpose();
    let record = record.map_err(Failure::Usage)?.unwrap_or_default();
    let feeds = feeds(&plan, options);
    let cpu = meter::cpu_seconds();
    let meter = Arc::new(Meter::new(Pacer::start()));
    let connection = |feed: &Feed| Connection {
        meter: meter.clone(),
        stream_ticks: options.stream_ticks.unwrap_or(u64::MAX),
        link: Link::new(&options.server, options.reconnect),
        record: record.clone(),
        tally: Tally::default(),
        seed: feed.seed().clone(),
    };
    let connections: Vec<Connection> = feeds.iter().map(connection).collect();
    let tallies = send(&plan, &meter, connections, channels, feeds).await.map_err(Failure::Connection)?;
    let cpu = cpu.and_then(|before| Some(meter::cpu_seconds()? - before));

    let mut report = report(&plan, &meter, &tallies, cpu);
    if let Some(before) = before {
        // What was connected before the run may be gone.
        let control = connect::connect(&options.server).await.map_err(Failure::Connection)?;
        report.verify = Some(verify(&mut connect::barline(control), &plan, &tallies, &before, options.settle).await?);
    }
    Ok(report)
}

/// Checks what a server holds against the record of a run.
///
/// # Errors
/// See [`Failure`].
pub async fn check(file: &std::path::Path, server: &Server, settle: Duration) -> Result<Verdict, Failure> {
    let record = Record::read(file).map_err(Failure::Usage)?;
    let channel = connect::connect(server).await.map_err(Failure::Connection)?;
    Verdict::of(&mut connect::barline(channel), &record, settle).await.map_err(Failure::Connection)
}

/// Holds what the server has against what was sent: exactly, unless ticks may be there twice.
async fn verify(
    client: &mut BarlineClient<Channel>,
    plan: &Arc<Plan>,
    tallies: &[Tally],
    before: &Counts,
    settle: Duration,
) -> Result<Verdict, Failure> {
    let again = tallies.iter().any(|tally| tally.ticks_again > 0);
    if again && plan.profile.protocol == Protocol::Tikr {
        let known = |tally: &Tally| Known {
            ticks: tally.sent,
            taken: tally.accepted,
            again: tally.again.clone(),
            sent: Some(tally.sent),
            ..Known::default()
        };
        let record = Record { plan: plan.clone(), connections: tallies.iter().map(known).collect() };
        return Verdict::of(client, &record, settle).await.map_err(Failure::Connection);
    }
    let sent: Vec<u64> = tallies.iter().map(|tally| tally.sent).collect();
    let expected = Expectation::regenerate(plan, &sent).map_err(Failure::Usage)?;
    expected.verify(client, plan, before, settle, again).await.map_err(Failure::Connection)
}

/// The ledger at rest before the run, so that what happens in it is the run's doing.
async fn rest(client: &mut BarlineClient<Channel>, profile: &Profile, options: &Options) -> Result<Counts, Failure> {
    let counts = Counts::at_rest(client, &profile.spec, options.settle).await;
    counts.map_err(|e| Failure::Connection(format!("before the run: {e}")))
}

/// A feed per connection.
fn feeds(plan: &Arc<Plan>, options: &Options) -> Vec<Feed> {
    // Two runs may begin in the same millisecond and have the same name.
    let own = || format!("loadgen-{}-{:08x}", plan.run, fastrand::u32(..));
    let producer = options.producer.clone().unwrap_or_else(own);
    let feed = |connection| {
        let seed = Seed {
            plan: plan.clone(),
            connection,
            producer: format!("{producer}-{connection}"),
            pool: Pool::default(),
            stop: options.stop.clone(),
        };
        let mut feed = Feed::new(seed, Start::default());
        if options.prebuild {
            feed.prebuild();
        }
        feed
    };
    (0..plan.connections()).map(feed).collect()
}

/// Sends all feeds at once, each on its own channel, and waits for the server's last word on each.
async fn send(
    plan: &Arc<Plan>,
    meter: &Arc<Meter>,
    connections: Vec<Connection>,
    channels: Vec<Channel>,
    feeds: Vec<Feed>,
) -> Result<Vec<Tally>, String> {
    let mut sending = JoinSet::new();
    for ((connection, channel), feed) in connections.into_iter().zip(channels).zip(feeds) {
        sending.spawn(async move { (connection.seed.connection, connection.run(channel, feed).await) });
    }
    let progress = tokio::spawn(progress::show(meter.clone(), plan.ticks));
    let tallies = all(sending).await;
    progress.abort();
    // The bar is cleared when its future is dropped, which must be before anything else is printed.
    let _ = progress.await;
    tallies
}

/// What every connection has sent, in their order; the first failure ends the others.
async fn all(mut sending: JoinSet<(u64, Result<Tally, String>)>) -> Result<Vec<Tally>, String> {
    let mut tallies = BTreeMap::new();
    while let Some(joined) = sending.join_next().await {
        let (number, tally) = joined.map_err(|e| format!("a connection's task ended: {e}"))?;
        tallies.insert(number, tally.map_err(|e| format!("connection {number}: {e}"))?);
    }
    Ok(tallies.into_values().collect())
}

fn report(plan: &Plan, meter: &Meter, tallies: &[Tally], cpu: Option<f64>) -> Report {
    let mut rejected = BTreeMap::new();
    for (reason, count) in tallies.iter().flat_map(|tally| &tally.rejected) {
        *rejected.entry(reason.clone()).or_default() += count;
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let sent = sum(|tally| tally.sent);
    let accepted = sum(|tally| tally.accepted);
    let duplicate = sum(|tally| tally.duplicate);
    let unaccounted = sent as i64 - (accepted + duplicate + rejected.values().sum::<u64>()) as i64;
    let end = tallies.iter().map(|tally| tally.at).max().unwrap_or(0);
    let sent_at = tallies.iter().map(|tally| tally.sent_at).max().unwrap_or(0);
    let seconds = (end as f64 / 1e9).max(1e-9);
    let again = Again {
        reconnects: sum(|tally| tally.reconnects),
        batches: sum(|tally| tally.batches_again),
        ticks: sum(|tally| tally.ticks_again),
    };
    Report {
        again,
        seconds,
        ticks_per_second: (accepted + duplicate) as f64 / seconds,
        megabytes_per_second: meter.bytes() as f64 / seconds / 1e6,
        bytes_per_tick: meter.bytes() as f64 / meter.ticks().max(1) as f64,
        send_latency: meter.send_latency(),
        ack_latency: meter.ack_latency(),
        final_ack_ms: (end - sent_at) as f64 / 1e6,
        generator_cpu: cpu.map(|seconds| Cpu { seconds, ns_per_tick: seconds * 1e9 / sent.max(1) as f64 }),
        ..Report::of(plan, Ticks { sent, accepted, rejected, duplicate, unaccounted })
    }
}
