//! A source: where ticks come into being. The only stages that are asynchronous.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::meter::Meter;
use super::outlet::SourceOutlet;
use super::stage::StageError;

/// One instance of a source.
pub trait Source: Send + 'static {
    /// Runs until `context.stop` is cancelled or the source has nothing more to give. When it returns, all it
    /// accepted has been sent.
    fn run(self: Box<Self>, context: SourceContext) -> Running;
}

/// A running source.
pub type Running = Pin<Box<dyn Future<Output = Result<(), StageError>>>>;

/// Makes a source instance.
pub type SourceFactory = Box<dyn Fn(u16) -> Result<Box<dyn Source>, StageError> + Send>;

/// What the shell gives a source.
#[derive(Clone)]
pub struct SourceContext {
    /// The way out.
    pub outlet: SourceOutlet,
    /// Cancelled when the topology stops.
    pub stop: CancellationToken,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The instance's counters.
    pub meter: Arc<Meter>,
}
