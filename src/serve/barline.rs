//! `barline.v1`: queries, live bars, the ledger, the sinks, the topology.

use std::ops::ControlFlow;
use std::sync::Arc;

use barline_proto::barline::barline_server::Barline;
use barline_proto::barline::{
    BarChunk, DimensionValues, GetLedgerRequest, GetSinksRequest, GetTopologyRequest, IngestAck, IngestBatch,
    InstanceStatus, Ledger, ListDimensionValuesRequest, ListSeriesRequest, Match as WireMatch, QueryBarsRequest,
    QueryTicksRequest, Series, SeriesChunk, SinkList, SinkStatus, SpecLedger, StageStatus, SubscribeBarsRequest,
    TapRequest, TapSample, TickChunk, Topology,
};
use futures_util::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::chunks::Chunks;
use super::convert;
use super::live::{self, Filter};
use super::read::select::{self, Series as Select};
use super::read::state::{InstanceRow, StageRow};
use super::read::{BarQuery, ReadError, TickQuery, bars, scan, sinks, state, ticks};
use super::served::Served;
use super::tap;
use super::tikr::{Reply, no_ingest};
use crate::catalog::Match;

/// The most values of a dimension in one reply, and their bytes.
const MAX_VALUES: usize = 10_000;
const MAX_VALUE_BYTES: usize = 2 << 20;

/// The service.
pub struct BarlineService(pub Arc<Served>);

#[tonic::async_trait]
impl Barline for BarlineService {
    type IngestStream = Reply<IngestAck>;
    type SubscribeBarsStream = Reply<BarChunk>;
    type QueryBarsStream = Reply<BarChunk>;
    type QueryTicksStream = Reply<TickChunk>;
    type ListSeriesStream = Reply<SeriesChunk>;
    type TapStream = Reply<TapSample>;

    async fn ingest(&self, _: Request<Streaming<IngestBatch>>) -> Result<Response<Reply<IngestAck>>, Status> {
        Err(no_ingest())
    }

    async fn subscribe_bars(
        &self,
        request: Request<SubscribeBarsRequest>,
    ) -> Result<Response<Reply<BarChunk>>, Status> {
        let request = request.into_inner();
        let position = request.position;
        let filter = filter(&self.0, request)?;
        Ok(Response::new(Box::pin(live::subscribe(&self.0, filter, position))))
    }

    async fn query_bars(&self, request: Request<QueryBarsRequest>) -> Result<Response<Reply<BarChunk>>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.spec)?.clone();
        let granularity = select::granularity(&spec, &request.granularity)?;
        let (from, to) = range(request.start_ns, request.end_ns)?;
        let series = Select::Matching(matching(request.r#match)?);
        let query = BarQuery { spec, granularity, series, from, to, limit: limit(request.limit) };
        let chunks = scan(&self.0, move |served, outlet| {
            let (gone, mut chunks) = (outlet.gone(), Chunks::new(outlet));
            bars::bars(&served.context, &query, &gone, &mut |row| {
                chunks.push(convert::bar(&row), convert::weight(row.key, row.metrics.len()))
            })?;
            let _ = chunks.flush();
            Ok(())
        })?;
        let chunks = chunks.map(|bars| Ok(BarChunk { bars: bars?, ..BarChunk::default() }));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn query_ticks(&self, request: Request<QueryTicksRequest>) -> Result<Response<Reply<TickChunk>>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.spec)?.clone();
        let (from, to) = range(request.start_ns, request.end_ns)?;
        let series = Select::Matching(matching(request.r#match)?);
        let query = TickQuery { spec, series, from, to, limit: limit(request.limit), late: request.late };
        let chunks = scan(&self.0, move |served, outlet| {
            let (gone, mut chunks) = (outlet.gone(), Chunks::new(outlet));
            ticks::ticks(&served.context, &query, &gone, &mut |row| {
                chunks.push(convert::tick(&row), convert::weight(row.key, query.spec.fields.len()))
            })?;
            let _ = chunks.flush();
            Ok(())
        })?;
        let chunks = chunks.map(|ticks| Ok(TickChunk { ticks: ticks? }));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn list_series(&self, request: Request<ListSeriesRequest>) -> Result<Response<Reply<SeriesChunk>>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.spec)?.id;
        let pattern = matching(request.r#match)?;
        let mut left = limit(request.limit);
        let chunks = scan(&self.0, move |served, outlet| {
            let mut chunks = Chunks::new(outlet);
            served.context.catalog.matching(spec, &pattern, &mut |_, key| {
                let series = Series { dimensions: convert::dimensions(key) };
                let flow = chunks.push(series, convert::weight(key, 0));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { flow }
            });
            let _ = chunks.flush();
            Ok(())
        })?;
        let chunks = chunks.map(|series| Ok(SeriesChunk { series: series? }));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn list_dimension_values(
        &self,
        request: Request<ListDimensionValuesRequest>,
    ) -> Result<Response<DimensionValues>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.spec)?.id;
        let pattern = matching(request.r#match)?;
        let limit = usize::try_from(limit(request.limit)).unwrap_or(MAX_VALUES).min(MAX_VALUES);
        let mut found = scan(&self.0, move |served, outlet| {
            let values = served.context.catalog.dimension_values(spec, &request.dimension, &pattern, limit + 1);
            let _ = outlet.give(values);
            Ok(())
        })?;
        let values = found.next().await.unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(Response::new(cut(values, limit)))
    }

    async fn get_ledger(&self, request: Request<GetLedgerRequest>) -> Result<Response<Ledger>, Status> {
        let rows = state::ledger(&self.0, &request.into_inner().spec)?;
        Ok(Response::new(Ledger { specs: rows.into_iter().map(SpecLedger::from).collect() }))
    }

    async fn get_sinks(&self, request: Request<GetSinksRequest>) -> Result<Response<SinkList>, Status> {
        let rows = sinks::named(&self.0.context, &request.into_inner().sink)?;
        Ok(Response::new(SinkList { sinks: rows.into_iter().map(SinkStatus::from).collect() }))
    }

    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Result<Response<Topology>, Status> {
        let topology = state::topology(&self.0);
        let stages = topology.stages.into_iter().map(StageStatus::from).collect();
        Ok(Response::new(Topology { name: topology.name, stages }))
    }

    async fn tap(&self, request: Request<TapRequest>) -> Result<Response<Reply<TapSample>>, Status> {
        let request = request.into_inner();
        let matching = matching(request.r#match.clone())?;
        Ok(Response::new(Box::pin(tap::tap(&self.0, &request, matching)?)))
    }
}

/// The range of a request, in which 0 leaves an end open.
fn range(start: i64, end: i64) -> Result<(i64, i64), ReadError> {
    select::range(Some(start).filter(|at| *at != 0), Some(end).filter(|at| *at != 0))
}

/// The limit of a request, in which 0 means none.
fn limit(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

fn matching(request: Option<WireMatch>) -> Result<Match, ReadError> {
    let request = request.unwrap_or_default();
    select::matching(request.dimensions.into_iter().collect(), request.exact)
}

/// What a subscriber asks for, per spec. A granularity counts where a spec has it; some spec must.
fn filter(served: &Served, request: SubscribeBarsRequest) -> Result<Filter, ReadError> {
    let specs = &served.context.specs;
    let only = if request.spec.is_empty() { None } else { Some(select::spec(specs, &request.spec)?.id) };
    let asked = |spec: &crate::spec::Spec| only.is_none_or(|only| only == spec.id);
    let found = specs.iter().map(|s| asked(s).then(|| select::granularity(s, &request.granularity)).transpose());
    let found: Vec<Result<Option<u8>, ReadError>> = found.collect();
    if !found.iter().any(|granularity| matches!(granularity, Ok(Some(_)))) {
        let refused = found.into_iter().find_map(Result::err);
        return Err(refused.unwrap_or_else(|| ReadError::NotFound("this server has no specs".to_owned())));
    }
    let granularities = found.into_iter().map(|granularity| granularity.unwrap_or(None)).collect();
    Ok(Filter { granularities, series: matching(request.r#match)? })
}

/// As many values as fit into one reply.
fn cut(mut values: Vec<String>, limit: usize) -> DimensionValues {
    let found = values.len();
    let mut bytes = 0;
    let fits = |value: &&String| {
        bytes += value.len() + 4;
        bytes <= MAX_VALUE_BYTES
    };
    let kept = values.iter().take(limit).take_while(fits).count();
    values.truncate(kept);
    DimensionValues { values, truncated: kept < found }
}

impl From<StageRow> for StageStatus {
    fn from(row: StageRow) -> Self {
        let instances = row.instances.into_iter().map(InstanceStatus::from).collect();
        Self { name: row.name, kind: row.kind, from: row.from, instances, active: row.active }
    }
}

impl From<InstanceRow> for InstanceStatus {
    fn from(row: InstanceRow) -> Self {
        Self {
            instance: row.instance.into(),
            state: row.state.to_owned(),
            mailbox_depth: row.mailbox_depth,
            mailbox_capacity: row.mailbox_capacity,
            batches_in: row.batches_in,
            rows_in: row.rows_in,
            batches_out: row.batches_out,
            busy_ns: row.busy_ns,
            backpressured_ns: row.backpressured_ns,
            restarts: row.restarts,
            poisoned: row.poisoned,
            rows_out: row.rows_out,
            last_error: row.last_error.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_at_the_limit_and_at_what_a_client_takes() {
        let few = cut(vec!["a".into(), "b".into(), "c".into()], 2);
        assert_eq!((few.values.len(), few.truncated), (2, true));
        assert!(!cut(vec!["a".into(), "b".into()], 2).truncated);
        let long = cut(vec!["x".repeat(4096); 1000], 1000);
        assert!(long.truncated && long.values.len() * 4096 <= MAX_VALUE_BYTES);
    }

    #[test]
    fn an_end_of_zero_is_open() {
        assert_eq!(range(0, 0), Ok((i64::MIN, i64::MAX)));
        assert_eq!(range(-9, 0), Ok((-9, i64::MAX)));
        assert!(range(9, 3).is_err());
    }
}
