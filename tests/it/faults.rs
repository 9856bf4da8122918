//! The files of a data directory are damaged while the built binary is away, and it is started on them again. What a crash
//! leaves at the end of the log costs nothing that was acknowledged; of any other damage what is served is what was sent, and
//! what is missing was told, or the start is refused with the remedy, and that helps. A damaged log refuses no start.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline::QueryTicksRequest;
use barline_proto::tikr::{IngestRequest, TickData};

use super::harness::{Server, barline, block_on};
use super::store_contract::files::files;

const STREAMS: u64 = 40;
const TICKS: u64 = 25;

/// Sends ticks in streams of their own, each acknowledged on its own; gives the time of each.
async fn send(server: &Server) -> Vec<i64> {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 - 30_000_000_000;
    let mut client = server.tikr().await;
    let time = |stream: u64, n: u64| start + (stream * TICKS + n) * 1_000_000;
    for stream in 0..STREAMS {
        let ticks = (0..TICKS).map(|n| TickData {
            timestamp_ns: time(stream, n),
            dimensions: HashMap::from([("symbol".to_owned(), format!("S{}", n % 3))]),
            fields: HashMap::from([("price".to_owned(), n as i64), ("quantity".to_owned(), 1)]),
            sequence: 0,
        });
        let request = IngestRequest { series: "market_ticks".into(), ticks: ticks.collect() };
        client.ingest_ticks(tokio_stream::iter([request])).await.unwrap();
    }
    (0..STREAMS * TICKS).map(|n| time(0, n) as i64).collect()
}

/// The times of the ticks that are served.
async fn served(server: &Server) -> Result<Vec<i64>, tonic::Status> {
    let request = QueryTicksRequest { spec: "market_ticks".into(), ..QueryTicksRequest::default() };
    let mut chunks = server.barline().await.query_ticks(request).await?.into_inner();
    let mut times = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        times.extend(chunk.ticks.iter().map(|tick| tick.timestamp_ns));
    }
    times.sort_unstable();
    Ok(times)
}

/// What a SIGKILL leaves, and the times of the ticks acknowledged before.
fn left_by_a_kill(dir: &Path) -> (PathBuf, Vec<i64>) {
    let data = dir.join("data");
    let mut server = Server::start("edge.yaml", &data, &[]);
    let sent = block_on(send(&server));
    server.signal("KILL");
    server.wait();
    (data, sent)
}

/// The files of a directory, without the socket a SIGKILL leaves beside them.
fn stored(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.is_file()).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in stored(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
}

/// A copy of `sound` with what `change` makes of the bytes of one file; without it where that is nothing.
fn changed(sound: &Path, to: &Path, file: &Path, change: impl FnOnce(Vec<u8>, usize) -> Option<Vec<u8>>) {
    let _ = fs::remove_dir_all(to);
    copy(sound, to);
    let file = to.join(file.strip_prefix(sound).unwrap());
    let bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match change(bytes, used) {
        Some(bytes) => fs::write(&file, bytes).unwrap(),
        None => fs::remove_file(&file).unwrap(),
    }
}

fn is_log(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "jnl")
}

#[test]
fn what_a_crash_leaves_at_the_end_of_the_log_costs_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, sent) = left_by_a_kill(dir.path());
    let log = stored(&sound).into_iter().rfind(|file| is_log(file)).unwrap();
    let broken = dir.path().join("broken");
    let tails: [&[u8]; 3] = [&[0; 4096], &[0xa5; 777], b"\x01"];
    for tail in tails {
        changed(&sound, &broken, &log, |mut bytes, used| {
            bytes.truncate(used);
            bytes.extend_from_slice(tail);
            Some(bytes)
        });
        let server = Server::start("edge.yaml", &broken, &[]);
        assert_eq!(block_on(served(&server)).unwrap(), sent, "{} bytes more:\n{}", tail.len(), server.output());
    }
}

/// One start on damaged files, and another after a repair where the first asks for one: how it went, or what is wrong with
/// that.
fn judge(broken: &Path, sent: &[i64], may_refuse: bool) -> Result<(), String> {
    let mut server = Server::spawn("edge.yaml", broken, &[]);
    let mut status = None;
    server.until("it is ready or has ended", |server| {
        status = server.ended();
        status.is_some() || server.get("/ready").is_some()
    });
    let said = server.output();
    if let Some(status) = status {
        let is_fine = may_refuse && !status.success() && !said.contains("panicked");
        return match (is_fine, said.contains("verify --repair"), said.contains("restore")) {
            (true, true, _) => {
                repair(broken)?;
                judge(broken, sent, false)
            }
            (true, false, true) => Ok(()),
            _ => Err(format!("{status}:\n{said}")),
        };
    }
    let served = block_on(served(&server)).unwrap_or_default();
    let strange = served.iter().filter(|time| sent.binary_search(time).is_err()).count();
    let is_told =
        served.len() == sent.len() || ["quarantine", "damaged", "missing"].iter().any(|word| said.contains(word));
    let is_fine = strange == 0 && is_told && !said.contains("panicked");
    is_fine.then_some(()).ok_or_else(|| format!("{} of {} ticks, {strange} strange:\n{said}", served.len(), sent.len()))
}

fn repair(broken: &Path) -> Result<(), String> {
    let done = barline(&["store", "verify", "--repair", "--data-dir", broken.to_str().unwrap()]).output().unwrap();
    // 0: nothing was wrong, 1: something was.
    let said = [done.stdout, done.stderr].concat();
    if matches!(done.status.code(), Some(0 | 1)) { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

#[test]
fn any_damaged_file_is_told_and_a_damaged_log_refuses_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, sent) = left_by_a_kill(dir.path());
    let broken = dir.path().join("broken");
    let mut random = fastrand::Rng::with_seed(1);
    let mut cases: Vec<_> =
        stored(&sound).into_iter().flat_map(|file| (0..4).map(move |way| (file.clone(), way))).collect();
    random.shuffle(&mut cases);
    // Logs are where the latest is: each of their ways. Of the rest a sample.
    cases.sort_by_key(|(file, _)| !is_log(file));
    for (file, way) in cases.into_iter().take(20) {
        changed(&sound, &broken, &file, |mut bytes, used| {
            match way {
                0 => return None,
                1 => bytes.truncate(used / 2),
                2 => bytes[used / 2..].fill(0),
                _ if used > 0 => bytes[random.usize(0..used)] ^= 1 << random.u8(0..8),
                _ => {}
            }
            Some(bytes)
        });
        let judged = judge(&broken, &sent, !is_log(&file));
        assert_eq!(judged, Ok(()), "{}, damaged in way {way}", file.display());
    }
}
