//! Taps over the wire: batches as a stage is given them, for one client.

use std::sync::Arc;
use std::time::Duration;

use barline_proto::barline::{Bar, TapRequest, TapSample, Tick};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert;
use super::read::{BarRow, ReadError, select};
use super::served::Served;
use crate::catalog::Match;
use crate::model::{BarBatch, BarHead, TickBatch, Value};
use crate::runtime::Meter;
use crate::runtime::tap::{Sample, Shown, Tapping, Wish};

/// The most taps at once.
pub(super) const MOST: usize = 8;

/// What holds where a request says nothing, and what it may say.
const EVERY: Duration = Duration::from_millis(200);
const SHORTEST: Duration = Duration::from_millis(10);
const ROWS: usize = 10;
const MOST_ROWS: usize = 1000;

/// Samples that may wait for the client, besides those the instances hold ready.
const AHEAD: usize = 1;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows what is asked for until the client goes away or the topology stops.
///
/// # Errors
/// The request names something that is not there, or is out of bounds; or too many look already.
pub fn tap(
    served: &Arc<Served>,
    request: &TapRequest,
    series: Match,
) -> Result<ReceiverStream<Result<TapSample, Status>>, ReadError> {
    let points = points(served, request)?;
    let wish = wish(served, request, series)?;
    let busy = |_| ReadError::Busy(format!("{MOST} taps are open, the most at once; try again when one has ended"));
    let place = served.taps.clone().try_acquire_owned().map_err(busy)?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (served, stage) = (served.clone(), request.stage.clone());
    tokio::spawn(async move {
        let tapping = Tapping::open(points, wish, &served.context.catalog, &served.context.clock);
        let end = show(&served, &stage, &tapping, &sender).await;
        // The client may take its time to hear of the end; nobody waits for that.
        drop((tapping, place, served));
        if let Err(status) = end {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// The instances to look at.
fn points(served: &Served, request: &TapRequest) -> Result<Vec<Arc<Meter>>, ReadError> {
    let stage = select::stage(&served.plan, &request.stage)?;
    if let Some(instance) = request.instance.filter(|instance| *instance >= u32::from(stage.instances)) {
        let (name, last) = (&stage.name, stage.instances.saturating_sub(1));
        return Err(ReadError::NotFound(format!("no instance {instance} of {name}, there are: 0 to {last}")));
    }
    let is_meant = |meter: &&Arc<Meter>| {
        meter.stage == stage.name && request.instance.is_none_or(|instance| instance == u32::from(meter.instance))
    };
    Ok(served.meters().iter().filter(is_meant).cloned().collect())
}

fn wish(served: &Served, request: &TapRequest, series: Match) -> Result<Wish, ReadError> {
    let TapRequest { spec, every_ns, rows, .. } = request;
    let spec = if spec.is_empty() { None } else { Some(select::spec(&served.context.specs, spec)?.id) };
    let every = if *every_ns == 0 { EVERY } else { Duration::from_nanos(*every_ns) };
    if every < SHORTEST {
        return Err(ReadError::Invalid(format!("a batch every {every:?}; {SHORTEST:?} or more is allowed")));
    }
    let rows = if *rows == 0 { ROWS } else { *rows as usize };
    if rows > MOST_ROWS {
        return Err(ReadError::Invalid(format!("{rows} rows of a batch; at most {MOST_ROWS} are shown")));
    }
    Ok(Wish { spec, series, every, rows })
}

/// Gives samples to the client until it goes away; an error says what ended it otherwise.
async fn show(
    served: &Served,
    stage: &str,
    tapping: &Tapping,
    client: &mpsc::Sender<Result<TapSample, Status>>,
) -> Result<(), Status> {
    let shown = async {
        while let Some(sample) = tapping.next().await {
            let given = client.send(Ok(message(served, stage, sample)));
            match tokio::time::timeout(PATIENCE, given).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Status::resource_exhausted("the client took nothing for a minute")),
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = served.stopping().cancelled() => Err(Status::unavailable("stopping")),
        () = client.closed() => Ok(()),
        shown = shown => shown,
    }
}

fn message(served: &Served, stage: &str, sample: Sample) -> TapSample {
    let Sample { instance, time, rows, skipped, shown } = sample;
    let (spec, ticks, bars) = match &shown {
        Shown::Ticks(batch) => (batch.spec, ticks_of(served, batch), Vec::new()),
        Shown::Bars(batch) => (batch.spec, Vec::new(), bars_of(served, batch)),
    };
    TapSample {
        stage: stage.to_owned(),
        instance: instance.into(),
        time_ns: time,
        spec: served.context.specs.get(spec).name.clone(),
        rows: rows as u64,
        skipped,
        ticks,
        bars,
    }
}

fn ticks_of(served: &Served, batch: &TickBatch) -> Vec<Tick> {
    (0..batch.len()).map(|row| tick(served, batch, row)).collect()
}

fn tick(served: &Served, batch: &TickBatch, row: usize) -> Tick {
    let spec = served.context.specs.get(batch.spec);
    let declared = spec.fields.iter().zip(&batch.fields);
    let declared = declared.filter_map(|(field, column)| Some((field.name.clone(), field.ty.value(column.get(row)?))));
    let extras = batch.extras.iter().filter(|extra| extra.row as usize == row);
    let extras = extras.map(|extra| (extra.name.to_string(), Value::Int(extra.value)));
    Tick {
        dimensions: convert::dimensions(&served.context.catalog.key(batch.spec, batch.series_at(row))),
        timestamp_ns: batch.timestamps[row],
        sequence: batch.sequence_at(row),
        fields: declared.chain(extras).map(|(name, value)| (name, convert::value(value))).collect(),
    }
}

fn bars_of(served: &Served, batch: &BarBatch) -> Vec<Bar> {
    let spec = served.context.specs.get(batch.spec);
    let bar = |head: &BarHead| {
        let key = served.context.catalog.key(batch.spec, head.series);
        convert::bar(&BarRow::new(spec, &key, head, batch.state(head)))
    };
    batch.heads.iter().map(bar).collect()
}
