//! One who follows the live bars, over every restart, from the position he has come to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use barline_proto::barline::SubscribeBarsRequest;
use barline_proto::barline::barline_client::BarlineClient;
use tokio::runtime::Runtime;
use tonic::Status;

use super::sightings::Sightings;

/// A subscription to every spec.
pub struct Subscriber(Arc<State>);

struct State {
    server: SocketAddr,
    sightings: Arc<Sightings>,
    connected: AtomicBool,
    located: AtomicBool,
    missed: AtomicU64,
    ended: Mutex<String>,
}

impl Subscriber {
    /// Follows the bars of whoever serves at `server`, from now on and until the runtime ends.
    pub fn follow(server: SocketAddr, sightings: Arc<Sightings>, runtime: &Runtime) -> Self {
        let (connected, located, missed) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let state = Arc::new(State { server, sightings, connected, located, missed, ended: Mutex::default() });
        runtime.spawn({
            let state = state.clone();
            async move {
                let mut position = None;
                loop {
                    // Every end is the server's: it was killed, or says that it stops.
                    let ended = state.subscribe(&mut position).await;
                    *state.ended.lock().unwrap() =
                        format!("position {position:?}, the stream before ended with {ended:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        Self(state)
    }

    /// Whether it was ever connected.
    pub fn connected(&self) -> bool {
        self.0.connected.load(Relaxed)
    }

    /// Whether it was ever told a position, from which on it can be sure to be shown everything.
    pub fn located(&self) -> bool {
        self.0.located.load(Relaxed)
    }

    /// Where it is, and how its last stream ended.
    pub fn place(&self) -> String {
        self.0.ended.lock().unwrap().clone()
    }

    /// Bars it was not shown.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Relaxed)
    }
}

impl State {
    async fn subscribe(&self, position: &mut Option<u64>) -> Result<(), Status> {
        let client = BarlineClient::connect(format!("http://{}", self.server)).await;
        let mut client = client.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = SubscribeBarsRequest { position: *position, ..SubscribeBarsRequest::default() };
        let mut chunks = client.subscribe_bars(request).await?.into_inner();
        self.connected.store(true, Relaxed);
        while let Some(chunk) = chunks.message().await? {
            self.missed.fetch_add(chunk.missed, Relaxed);
            let place = format!("live before position {}", chunk.next_position);
            *position = Some(chunk.next_position);
            self.located.store(true, Relaxed);
            for bar in chunk.bars {
                self.sightings.show(bar, &place);
            }
        }
        Ok(())
    }
}
