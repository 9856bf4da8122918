//! What is sent over several lives of a process, and the source that sends it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{Fate, Receipt, SpecId, TimeNs};
use barline::runtime::source::Running;
use barline::runtime::{Context, Source, SourceContext, StageError};

use crate::naive::Tick;
use crate::scripted::{Script, batch};

/// A script and how far it has been played. Every tick's quantity is its number: by it a tick is known again.
pub struct Sending {
    pub script: Script,
    pub series: u32,
    /// The first batch not sent yet. None is sent twice.
    next: AtomicUsize,
    /// The batches whose durability was acknowledged, as far as the promise holds.
    pub acknowledged: Mutex<BTreeSet<usize>>,
}

impl Sending {
    /// A random script: a handful of series, disorder, equal timestamps, silences; a few ticks late by seconds, a few for
    /// windows that were stored lives ago.
    pub fn draw(random: &mut fastrand::Rng, start: TimeNs) -> Arc<Self> {
        let series = random.u32(1..10);
        let (mut event_time, mut number) = (start, 0);
        let mut script = Script::new();
        for _ in 0..random.usize(8..40) {
            let pause = Duration::from_micros(random.u64(0..250_000));
            event_time += pause.as_nanos() as TimeNs;
            let rows = random.usize(1..24);
            let mut tick = || {
                number += 1;
                let (series, sequence, price) = (random.u32(0..series), random.u32(0..3), random.i64(-50..50));
                let time = event_time - behind(random, event_time - start);
                Tick { series, time, sequence, price, quantity: number }
            };
            script.push((pause, (0..rows).map(|_| tick()).collect()));
        }
        Arc::new(Self { script, series, next: AtomicUsize::new(0), acknowledged: Mutex::default() })
    }

    /// How long playing it all takes where nothing holds it up.
    pub fn length(&self) -> Duration {
        self.script.iter().map(|(pause, _)| *pause).sum()
    }

    /// A source that plays on from where the last one stopped.
    pub fn source(self: &Arc<Self>, context: Arc<OnceLock<Context>>, spec: SpecId) -> Box<dyn Source> {
        Box::new(Player { sending: self.clone(), context, spec })
    }
}

/// How far a tick's time is behind: usually within `wait`, sometimes late, sometimes anywhere in the past.
fn behind(random: &mut fastrand::Rng, past: TimeNs) -> TimeNs {
    let most = match random.u8(0..40) {
        0 => past + SECOND,
        1..4 => 5 * SECOND,
        _ => 150 * MILLISECOND,
    };
    random.i64(0..most)
}

struct Player {
    sending: Arc<Sending>,
    context: Arc<OnceLock<Context>>,
    spec: SpecId,
}

impl Source for Player {
    fn run(self: Box<Self>, source: SourceContext) -> Running {
        Box::pin(async move {
            let context = self.context.get().unwrap();
            let ledger = context.ledger.spec(self.spec);
            while let Some((pause, ticks)) = self.sending.script.get(self.sending.next.load(Relaxed)) {
                tokio::select! {
                    biased;
                    () = source.stop.cancelled() => break,
                    () = tokio::time::sleep(*pause) => {}
                }
                let number = self.sending.next.fetch_add(1, Relaxed);
                let mut batch = batch(self.spec, ticks);
                let sending = self.sending.clone();
                batch.receipt = Some(Receipt::new(move |fate| {
                    if fate == Fate::Durable {
                        sending.acknowledged.lock().unwrap().insert(number);
                    }
                }));
                ledger.accept(ticks.len() as u64);
                source.outlet.send(batch).await.map_err(|_| StageError::fatal("gone"))?;
            }
            Ok(())
        })
    }
}
