//! What comes in: waiting for it, keeping it until it is settled.

use std::time::Duration;

use super::{Call, Pending, Worker};
use crate::model::Envelope;
use crate::runtime::drain::Exit;
use crate::runtime::lane::Posted;
use crate::runtime::mailbox::Received;
use crate::runtime::meter::InstanceState;
use crate::runtime::phases::Phase;
use crate::runtime::stage::Stage;

impl Worker {
    /// Waits for input, for the time the stage asked to be woken, or for the end. A wake that is due comes before input
    /// that waits, but not twice in a row.
    pub(super) async fn receive(&mut self, stage: &dyn Stage) -> Result<Call, Exit> {
        let wake_in = stage.next_wake().map(|time| self.clock.until(time));
        self.woken = wake_in == Some(Duration::ZERO) && !self.woken;
        if self.woken {
            return Ok(Call::Wake);
        }
        let received = match (wake_in, self.mailbox.try_next()) {
            (Some(Duration::ZERO), None) => return Ok(Call::Wake),
            (_, Some(received)) => received,
            (pause, None) => match self.wait(pause).await {
                Some(received) => received,
                None => return Ok(Call::Wake),
            },
        };
        match received {
            Received::Envelope(lane, posted) => Ok(Call::Handle(self.take(lane, posted))),
            Received::Ended => {
                self.meter.set_state(InstanceState::Draining);
                Ok(Call::Finish)
            }
            Received::Broken => Err(Exit::Severed),
        }
    }

    /// Waits for input, at most so long, or until a router is told of a change.
    async fn wait(&mut self, pause: Option<Duration>) -> Option<Received> {
        self.meter.phases.enter(Phase::Idle);
        let knocked = async {
            match &self.router_of {
                Some(scaling) => scaling.knocked().await,
                None => std::future::pending().await,
            }
        };
        let passed = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let received = tokio::select! {
            biased;
            received = self.mailbox.next() => Some(received),
            () = knocked => None,
            () = passed => None,
        };
        self.meter.phases.enter(Phase::Busy);
        received
    }

    /// Counts an envelope in and keeps it until it is settled.
    fn take(&mut self, lane: usize, posted: Posted) -> Envelope {
        let Posted { envelope, at, trace } = posted;
        self.meter.batches_in.add(1);
        self.meter.rows_in.add(envelope.rows() as u64);
        self.meter.queue.record(at.elapsed());
        self.meter.tap.offer(&envelope);
        let span = self.tracing.as_ref().zip(trace).map(|(tracing, trace)| tracing.follow(trace, at));
        self.pending.push_back(Pending { lane, envelope: envelope.clone(), panics: 0, at, span });
        self.hold();
        envelope
    }

    /// Lets it be seen from outside how old the input in hand is.
    pub(super) fn hold(&self) {
        self.meter.hold(self.pending.front().map(|pending| pending.at));
    }

    /// Settles the first `count` pending inputs.
    pub(super) fn settle(&mut self, count: usize) -> usize {
        for Pending { lane, envelope, span, .. } in self.pending.drain(..count) {
            if let Envelope::Ticks(slice) = &envelope {
                self.handled = self.handled.max(slice.end_offset());
            }
            if let (Some(tracing), Some(span)) = (&self.tracing, span) {
                tracing.end(span, envelope.rows() as u64);
            }
            self.mailbox.settle(lane, 1);
        }
        self.hold();
        count
    }
}
