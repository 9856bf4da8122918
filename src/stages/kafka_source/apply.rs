//! Claimed messages become batches of ticks, one per claim and spec, each named by its claim's number: so the journal
//! takes what lies in the inbox once, however often it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::time::Duration;

use super::Config;
use super::claim::Claim;
use super::format::Decoder;
use super::shared::Shared;
use crate::codec::{Builders, Decoded};
use crate::model::{Fate, Origin, Reason, Receipt, SpecId};
use crate::runtime::outlet::Sent;
use crate::runtime::{Admission, Context, SourceContext, StageError};
use crate::store::Durability;
use crate::store::producers::LASTING;

/// How long the last batches are waited for at the end; what is not in the journal by then stays in the inbox.
const LAST: Duration = Duration::from_secs(1);
/// The pause between two looks while something has to come about.
const PAUSE: Duration = Duration::from_millis(10);

/// See the module's text.
pub struct Applier {
    context: Context,
    source: SourceContext,
    shared: Arc<Shared>,
    decoder: Decoder,
    builders: Builders,
    stage: String,
    /// By spec: the name its batches go by.
    producers: Vec<Arc<str>>,
}

/// What was read of one claim.
#[derive(Default)]
struct Read {
    by_spec: BTreeMap<Option<SpecId>, Vec<Decoded>>,
    /// Messages that are none.
    malformed: u64,
}

impl Applier {
    pub fn new(context: Context, config: &Config, stage: &str, source: SourceContext, shared: Arc<Shared>) -> Self {
        let name = |spec: &Arc<crate::spec::Spec>| format!("{LASTING}{stage}/{}", spec.name).into();
        Self {
            decoder: Decoder::new(config.format, context.specs.clone(), config.spec.clone()),
            builders: Builders::new(&context.specs),
            producers: context.specs.iter().map(name).collect(),
            stage: stage.to_owned(),
            context,
            source,
            shared,
        }
    }

    /// Sends the ticks of `claims` down the pipeline.
    pub async fn apply(&mut self, claims: Vec<Claim>) -> Result<(), StageError> {
        for claim in claims {
            let read = self.read(&claim);
            self.context.ledger.unknown().reject(Reason::Malformed, read.malformed);
            let specs: Vec<SpecId> = self.builders.non_empty().collect();
            let rest = Arc::new(AtomicUsize::new(specs.len()));
            if specs.is_empty() {
                self.shared.finish(claim.number, claim.bytes());
            }
            for (spec, decoded) in &read.by_spec {
                match spec.filter(|spec| specs.contains(spec)) {
                    Some(spec) => self.send(spec, decoded, &claim, rest.clone()).await?,
                    None => self.count(*spec, decoded),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, claim: &Claim) -> Read {
        let (now, mut read) = (self.source.clock.now(), Read::default());
        for (offset, message) in claim.messages() {
            match self.decoder.decode(message, now, self.context.catalog.as_ref(), &mut self.builders) {
                Ok(decoded) => decoded.into_iter().for_each(|of| read.by_spec.entry(of.spec).or_default().push(of)),
                Err(error) => {
                    if read.malformed == 0 {
                        let (topic, partition) = (&claim.partition.topic, claim.partition.number);
                        tracing::warn!(%topic, partition, offset, "a message cannot be read and is passed over: {error}");
                    }
                    read.malformed += 1;
                }
            }
        }
        read
    }

    /// Sends what is in the builder of `spec`, unless the journal has it already.
    async fn send(
        &mut self,
        spec: SpecId,
        decoded: &[Decoded],
        claim: &Claim,
        rest: Arc<AtomicUsize>,
    ) -> Result<(), StageError> {
        let mut batch = self.builders.take(spec);
        let Some(origin) = self.admit(spec, claim.number).await else {
            finish_part(&self.shared, &rest, claim.number, claim.bytes());
            return Ok(());
        };
        self.count(Some(spec), decoded);
        batch.origins.push(origin);
        let (producers, origins) = (self.context.producers.clone(), batch.origins.clone());
        let (shared, number, bytes) = (self.shared.clone(), claim.number, claim.bytes());
        let receipt = Receipt::new(move |fate| {
            producers.settle(&origins, fate);
            if fate == Fate::Durable {
                finish_part(&shared, &rest, number, bytes);
            }
        });
        batch.receipt = Some(receipt.clone());
        let rows = batch.len() as u64;
        let gone = |_| StageError::fatal("the stage behind it is gone");
        let sent = self.source.outlet.send(batch).await.map_err(gone)?;
        if sent == Sent::Dropped {
            self.context.ledger.spec(spec).drop(Reason::MailboxFull, rows);
        }
        if sent == Sent::Dropped || !self.context.journaled {
            receipt.acknowledge();
        }
        Ok(())
    }

    /// `None` where the journal has taken the claim's ticks of `spec` before. Claims are sent in order, so what lies below
    /// everything that is remembered was taken.
    async fn admit(&self, spec: SpecId, number: u64) -> Option<Origin> {
        let producer = &self.producers[spec.0 as usize];
        loop {
            match self.context.producers.admit(producer, number, self.source.clock.now()) {
                Admission::Fresh(origin) => return Some(origin),
                Admission::Taken | Admission::Forgotten { .. } | Admission::Pending(_) => return None,
                Admission::TooMany => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn count(&self, spec: Option<SpecId>, decoded: &[Decoded]) {
        let ledger = spec.map_or(self.context.ledger.unknown(), |spec| self.context.ledger.spec(spec));
        for of in decoded {
            ledger.accept(of.accepted);
            of.rejected.iter().for_each(|rejection| ledger.reject(rejection.reason, rejection.rows));
        }
    }

    /// Waits a little for what is under way, and forgets what has arrived.
    pub async fn finish(&self) {
        let arrived = async {
            while self.shared.outstanding() > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        // What has not arrived is found in the inbox again.
        let _ = tokio::time::timeout(LAST, arrived).await;
        let mut batch = self.context.store.batch();
        self.shared.take_finished().into_iter().for_each(|number| batch.remove_inbox(&self.stage, number));
        if !batch.is_empty()
            && let Err(error) = batch.commit(Durability::Process)
        {
            tracing::warn!(stage = self.stage, %error, "the inbox was not emptied");
        }
    }
}

/// One of the batches of a claim is in the journal; with the last the claim is done.
fn finish_part(shared: &Shared, rest: &AtomicUsize, number: u64, bytes: usize) {
    if rest.fetch_sub(1, AcqRel) == 1 {
        shared.finish(number, bytes);
    }
}
