//! The collector: all connections of an instance append to the same columns, one batch per spec under construction.
//!
//! A batch is sealed and sent when it is full, or when its first tick has lingered long enough. Whoever needs to know
//! when its ticks are durable holds a [`Ticket`]: the spec and the number of the batch they are in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Config;
use crate::codec::{Builders, Decoded, Malformed};
use crate::model::{Fate, Reason, Receipt, SpecId, TickBatch, TimeNs};
use crate::runtime::measures::span;
use crate::runtime::outlet::{DownstreamGone, Sent};
use crate::runtime::{Context, SourceContext};

/// See the module's text.
pub struct Collector {
    pub context: Context,
    pub source: SourceContext,
    rows: usize,
    linger: Duration,
    building: Mutex<Building>,
    /// By spec.
    heard: Vec<Arc<watch::Sender<Heard>>>,
    begun: Notify,
}

struct Building {
    builders: Builders,
    /// By spec: how many batches were sealed.
    sealed: Vec<u64>,
    closed: bool,
}

/// What was heard of the batches of one spec. They are told in order, so one number says it for all that were not lost.
#[derive(Default)]
struct Heard {
    last: u64,
    lost: Vec<u64>,
}

/// Where some ticks went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub spec: SpecId,
    pub batch: u64,
}

/// Why ticks could not be collected.
pub enum CollectError {
    /// The message is no message.
    Malformed(Malformed),
    /// The source has stopped.
    Closed,
}

impl Collector {
    pub fn new(context: Context, config: &Config, source: SourceContext) -> Self {
        let specs = context.specs.len();
        Self {
            building: Mutex::new(Building {
                builders: Builders::new(&context.specs),
                sealed: vec![0; specs],
                closed: false,
            }),
            heard: (0..specs).map(|_| Arc::new(watch::Sender::new(Heard::default()))).collect(),
            begun: Notify::new(),
            rows: config.batch.rows,
            linger: Duration::from_nanos(config.batch.linger.0 as u64),
            context,
            source,
        }
    }

    pub fn now(&self) -> TimeNs {
        self.source.clock.now()
    }

    /// Lets `fill` append the ticks of one message, counts them, and sends what has become full.
    pub async fn collect(
        &self,
        fill: impl FnOnce(&mut Builders) -> Result<Decoded, Malformed>,
    ) -> Result<(Decoded, Option<Ticket>), CollectError> {
        let (decoded, ticket, full) = {
            let mut building = self.building();
            if building.closed {
                return Err(CollectError::Closed);
            }
            let decoded = fill(&mut building.builders).map_err(CollectError::Malformed)?;
            let ticket = decoded.spec.map(|spec| Ticket { spec, batch: building.sealed[spec.0 as usize] + 1 });
            let ticket = ticket.filter(|_| decoded.accepted > 0);
            let full = ticket.is_some_and(|ticket| building.builders.rows(ticket.spec) >= self.rows);
            (decoded, ticket, full)
        };
        self.count(&decoded);
        if let Some(ticket) = ticket {
            if full {
                self.send(ticket).await.map_err(|_| CollectError::Closed)?;
            } else {
                self.begun.notify_one();
            }
        }
        Ok((decoded, ticket))
    }

    /// Sends the ticket's batch if nobody has yet, and waits until it is as durable as the topology makes it.
    pub async fn settle(&self, ticket: Ticket) -> Result<(), DownstreamGone> {
        self.send(ticket).await?;
        let mut heard = self.heard[ticket.spec.0 as usize].subscribe();
        // The sending half lives as long as the collector.
        let heard = heard.wait_for(|heard| heard.last >= ticket.batch).await.map_err(|_| DownstreamGone)?;
        if heard.lost.contains(&ticket.batch) { Err(DownstreamGone) } else { Ok(()) }
    }

    /// Sends batches whose first tick has waited long enough; sleeps while there is none.
    pub async fn linger(&self) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(self.linger).await;
            if self.send_all().await.is_err() {
                return;
            }
        }
    }

    /// Takes no more ticks and sends what is left.
    pub async fn close(&self) {
        self.building().closed = true;
        if self.send_all().await.is_err() {
            tracing::error!(stage = self.source.meter.stage, "the stage behind is gone, its last batches are lost");
        }
    }

    async fn send_all(&self) -> Result<(), DownstreamGone> {
        let tickets: Vec<_> = {
            let building = self.building();
            let specs = (0..building.sealed.len()).map(|spec| SpecId(spec as u16));
            let waiting = specs.filter(|spec| building.builders.rows(*spec) > 0);
            waiting.map(|spec| Ticket { spec, batch: building.sealed[spec.0 as usize] + 1 }).collect()
        };
        for ticket in tickets {
            self.send(ticket).await?;
        }
        Ok(())
    }

    /// Seals and sends the ticket's batch, unless somebody else has.
    async fn send(&self, ticket: Ticket) -> Result<(), DownstreamGone> {
        let turn = self.source.outlet.turn().await;
        if let Some(batch) = self.seal(ticket) {
            let (rows, receipt) = (batch.len() as u64, batch.receipt.clone());
            let sent = turn.send(batch).await?;
            if sent == Sent::Dropped {
                self.context.ledger.spec(ticket.spec).drop(Reason::MailboxFull, rows);
            }
            // Without a journal "accepted" is all an acknowledgement can mean.
            if let Some(receipt) = receipt.filter(|_| sent == Sent::Dropped || !self.context.journaled) {
                receipt.acknowledge();
            }
        }
        Ok(())
    }

    fn seal(&self, ticket: Ticket) -> Option<TickBatch> {
        let mut building = self.building();
        let sealed = &mut building.sealed[ticket.spec.0 as usize];
        if *sealed >= ticket.batch {
            return None;
        }
        *sealed = ticket.batch;
        let mut batch = building.builders.take(ticket.spec);
        drop(building);
        let heard = self.heard[ticket.spec.0 as usize].clone();
        let (producers, origins) = (self.context.producers.clone(), batch.origins.clone());
        let (measures, clock) = (self.context.measures.clone(), self.source.clock.clone());
        let (first, rows) = (batch.timestamps.first().copied(), batch.len() as u64);
        batch.receipt = Some(Receipt::new(move |fate| {
            producers.settle(&origins, fate);
            if let Some(first) = first.filter(|_| fate == Fate::Durable) {
                measures.tick_to_ack.record_many(span(first, clock.now()), rows);
            }
            heard.send_modify(|heard| {
                heard.last = heard.last.max(ticket.batch);
                if fate == Fate::Lost {
                    heard.lost.push(ticket.batch);
                }
            });
        }));
        Some(batch)
    }

    fn count(&self, decoded: &Decoded) {
        let ledger = match decoded.spec {
            Some(spec) => self.context.ledger.spec(spec),
            None => self.context.ledger.unknown(),
        };
        ledger.accept(decoded.accepted);
        for rejection in decoded.rejected.iter() {
            ledger.reject(rejection.reason, rejection.rows);
        }
    }

    fn building(&self) -> MutexGuard<'_, Building> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
