//! What it costs to hand an envelope from one instance to the next.
//!
//! `hand_off`: two threads, each with a runtime as an arbiter has it, as fast as they can; the capacity is that of the
//! lane. `round_trip`: there and back with nobody busy, so both ends are woken each time. `next_ready`: taking what
//! waits in 1, 4 or 16 lanes. `next_waiting`: the same when it comes only after the mailbox began to wait.
//!
//! `cargo bench --bench mailbox`; throughput is in envelopes.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;

use barline::model::{Envelope, SpecId, TickBatch, TickSlice};
use barline::runtime::lane::{LaneSender, lane};
use barline::runtime::mailbox::{Mailbox, Received};
use barline::runtime::outlet::Outlet;
use barline::runtime::{Meter, Output};
use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::future::join;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Envelopes handed from thread to thread per sample.
const HANDED: usize = 100_000;
/// Envelopes taken on one thread per sample.
const TAKEN: usize = 1_024;
/// Times there and back per sample.
const TRIPS: usize = 1_000;

fn main() {
    divan::main();
}

/// The runtime of an arbiter: one thread, the caller's.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Envelopes of batches of their own, so that the two threads share no reference count they would not share at work.
fn envelopes(count: usize) -> Vec<Envelope> {
    let envelope = |_| Envelope::Ticks(TickSlice::whole(Arc::new(TickBatch::new(SpecId(0), 2)), 0));
    (0..count).map(envelope).collect()
}

/// A mailbox of `lanes`, with what feeds them.
fn mailbox(lanes: usize, capacity: usize) -> (Vec<LaneSender>, Mailbox) {
    let (senders, receivers) = (0..lanes).map(|_| lane(capacity)).unzip();
    (senders, Mailbox::new(receivers))
}

/// The way out of an instance into one lane.
fn outlet(lane: LaneSender) -> Outlet {
    Outlet::new(vec![vec![lane]], Meter::new("bench", 0))
}

async fn send(outlet: &Outlet, output: &mut Output, envelope: Envelope) {
    output.emit(envelope);
    outlet.flush(output, None).await.unwrap();
}

/// Takes and settles one envelope; `None` at the end.
async fn take(mailbox: &mut Mailbox) -> Option<Envelope> {
    match mailbox.next().await {
        Received::Envelope(lane, posted) => {
            mailbox.settle(lane, 1);
            Some(posted.envelope)
        }
        Received::Ended => None,
        Received::Broken => panic!("the sender broke off"),
    }
}

#[divan::bench(args = [4, 64, 1_024], sample_count = 30, sample_size = 1)]
fn hand_off(bencher: Bencher, capacity: usize) {
    bencher.counter(ItemsCount::new(HANDED)).with_inputs(|| envelopes(HANDED)).bench_local_values(|envelopes| {
        let (mut senders, mut mailbox) = mailbox(1, capacity);
        let outlet = outlet(senders.remove(0));
        let sender = thread::spawn(move || {
            runtime().block_on(async {
                let mut output = Output::default();
                for envelope in envelopes {
                    send(&outlet, &mut output, envelope).await;
                }
                outlet.end().await;
            });
        });
        runtime().block_on(async { while take(&mut mailbox).await.is_some() {} });
        sender.join().unwrap();
    });
}

#[divan::bench(sample_count = 30, sample_size = 1)]
fn round_trip(bencher: Bencher) {
    bencher.counter(ItemsCount::new(TRIPS)).with_inputs(|| envelopes(1)).bench_local_values(|mut envelopes| {
        let ((mut there, mut far), (mut back, mut near)) = (mailbox(1, 64), mailbox(1, 64));
        let (there, back) = (outlet(there.remove(0)), outlet(back.remove(0)));
        let echo = thread::spawn(move || {
            runtime().block_on(async {
                let mut output = Output::default();
                while let Some(envelope) = take(&mut far).await {
                    send(&back, &mut output, envelope).await;
                }
                back.end().await;
            });
        });
        runtime().block_on(async {
            let (mut output, mut envelope) = (Output::default(), envelopes.remove(0));
            for _ in 0..TRIPS {
                send(&there, &mut output, envelope).await;
                envelope = take(&mut near).await.unwrap();
            }
            there.end().await;
            assert!(take(&mut near).await.is_none());
        });
        echo.join().unwrap();
    });
}

#[divan::bench(args = [1, 4, 16])]
fn next_ready(bencher: Bencher, lanes: usize) {
    let runtime = runtime();
    let filled = || {
        let (senders, mailbox) = mailbox(lanes, TAKEN);
        for (envelope, lane) in envelopes(TAKEN).into_iter().zip(senders.iter().cycle()) {
            lane.try_send(envelope, None).unwrap();
        }
        (senders, mailbox)
    };
    bencher.counter(ItemsCount::new(TAKEN)).with_inputs(filled).bench_local_refs(|(_, mailbox)| {
        runtime.block_on(async {
            for _ in 0..TAKEN {
                take(mailbox).await.unwrap();
            }
        });
    });
}

#[divan::bench(args = [1, 4, 16])]
fn next_waiting(bencher: Bencher, lanes: usize) {
    let runtime = runtime();
    let (senders, mailbox) = mailbox(lanes, 4);
    let mailbox = RefCell::new(mailbox);
    bencher.counter(ItemsCount::new(TAKEN)).with_inputs(|| envelopes(TAKEN)).bench_local_values(|envelopes| {
        let mut mailbox = mailbox.borrow_mut();
        runtime.block_on(async {
            for (envelope, lane) in envelopes.into_iter().zip(senders.iter().cycle()) {
                // The taker is looked at first and finds nothing.
                let (taken, sent) = join(take(&mut mailbox), async { lane.try_send(envelope, None) }).await;
                sent.unwrap();
                taken.unwrap();
            }
        });
    });
}
