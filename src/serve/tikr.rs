//! `tikr.v1` as existing tikr clients know it, with real status codes and streamed replies.

use std::pin::Pin;
use std::sync::Arc;

use barline_proto::tikr::tikr_server::Tikr;
use barline_proto::tikr::{
    BarData, BarQuery as BarRequest, Empty, IngestRequest, IngestResponse, SeriesList, ServerInfo, TickData,
    TickQuery as TickRequest,
};
use futures_util::future::Either;
use futures_util::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::chunks::Chunks;
use super::convert;
use super::read::select::{self, Series};
use super::read::{BarQuery, ReadError, TickQuery, bars, scan, ticks};
use super::served::Served;
use crate::model::time::DAY;
use crate::model::{SeriesKey, TimeNs};

/// The longest range of one query, other than everything.
const MAX_RANGE: u64 = DAY.unsigned_abs();

/// The service.
pub struct TikrService(pub Arc<Served>);

/// A streamed reply.
pub type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Tikr for TikrService {
    type QueryTicksStream = Reply<TickData>;
    type QueryBarsStream = Reply<BarData>;

    async fn ingest_ticks(&self, _: Request<Streaming<IngestRequest>>) -> Result<Response<IngestResponse>, Status> {
        Err(no_ingest())
    }

    async fn query_ticks(&self, request: Request<TickRequest>) -> Result<Response<Reply<TickData>>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.series)?.clone();
        let (from, to) = range(request.start_ns, request.end_ns)?;
        let series = series(&request.dimensions)?;
        let limit = if request.limit == 0 { u64::MAX } else { request.limit.into() };
        let query = TickQuery { spec, series, from, to, limit, late: false };
        let rows = scan(&self.0, move |served, outlet| {
            let (gone, mut chunks) = (outlet.gone(), Chunks::new(outlet));
            ticks::ticks(&served.context, &query, &gone, &mut |row| {
                chunks.push(convert::tikr_tick(&row), convert::weight(row.key, query.spec.fields.len()))
            })?;
            let _ = chunks.flush();
            Ok(())
        })?;
        Ok(Response::new(one_by_one(rows)))
    }

    async fn query_bars(&self, request: Request<BarRequest>) -> Result<Response<Reply<BarData>>, Status> {
        let request = request.into_inner();
        let spec = select::spec(&self.0.context.specs, &request.series)?.clone();
        let (from, to) = range(request.start_ns, request.end_ns)?;
        let series = series(&request.dimensions)?;
        let query = BarQuery { spec, granularity: 0, series, from, to, limit: u64::MAX };
        let rows = scan(&self.0, move |served, outlet| {
            let (gone, mut chunks) = (outlet.gone(), Chunks::new(outlet));
            bars::bars(&served.context, &query, &gone, &mut |row| {
                chunks.push(convert::tikr_bar(&row), convert::weight(row.key, row.metrics.len()))
            })?;
            let _ = chunks.flush();
            Ok(())
        })?;
        Ok(Response::new(one_by_one(rows)))
    }

    async fn list_series(&self, _: Request<Empty>) -> Result<Response<SeriesList>, Status> {
        let series = self.0.context.specs.iter().map(|spec| convert::tikr_series(spec)).collect();
        Ok(Response::new(SeriesList { series }))
    }

    async fn get_info(&self, _: Request<Empty>) -> Result<Response<ServerInfo>, Status> {
        Ok(Response::new(ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.0.uptime_seconds(),
            series: self.0.context.specs.iter().map(|spec| convert::tikr_series(spec)).collect(),
        }))
    }
}

/// What is said where no stage takes ticks: a `grpc_ingest` stage answers these two methods itself.
pub(super) fn no_ingest() -> Status {
    Status::unimplemented("this server has no grpc_ingest stage")
}

/// The time range of a request: both ends 0 mean everything kept, otherwise both are taken literally.
fn range(start: u64, end: u64) -> Result<(TimeNs, TimeNs), ReadError> {
    if start == 0 && end == 0 {
        return Ok((TimeNs::MIN, TimeNs::MAX));
    }
    if end <= start {
        let place = format!("start_ns {start}, end_ns {end}");
        return Err(ReadError::Invalid(format!("invalid time range: end must be after start ({place})")));
    }
    if end - start > MAX_RANGE {
        let asked = end - start;
        return Err(ReadError::OutOfRange(format!(
            "time range too large: max 24h ({MAX_RANGE} ns), this is {asked} ns"
        )));
    }
    let clamp = |time: u64| TimeNs::try_from(time).unwrap_or(TimeNs::MAX);
    Ok((clamp(start), clamp(end)))
}

/// The one series that has exactly these dimensions; `*` is an ordinary value here.
fn series(dimensions: &std::collections::HashMap<String, String>) -> Result<Series, ReadError> {
    let pairs = dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    SeriesKey::new(pairs).map(Series::One).map_err(|error| ReadError::Invalid(error.to_string()))
}

/// Chunks as the single messages this protocol streams.
fn one_by_one<T: Send + 'static>(chunks: impl Stream<Item = Result<Vec<T>, ReadError>> + Send + 'static) -> Reply<T> {
    Box::pin(chunks.flat_map(|chunk| match chunk {
        Ok(rows) => Either::Left(stream::iter(rows.into_iter().map(Ok))),
        Err(error) => Either::Right(stream::iter([Err(Status::from(error))])),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_both_ends_zero_mean_everything() {
        assert_eq!(range(0, 0), Ok((TimeNs::MIN, TimeNs::MAX)));
        assert!(matches!(range(5, 0), Err(ReadError::Invalid(_))));
        assert!(matches!(range(0, u64::MAX), Err(ReadError::OutOfRange(_))));
        assert_eq!(range(0, 7), Ok((0, 7)));
    }

    #[test]
    fn a_day_is_allowed_and_what_is_beyond_the_clock_is_clamped() {
        assert_eq!(range(1, 1 + MAX_RANGE), Ok((1, 1 + DAY)));
        assert!(matches!(range(1, 2 + MAX_RANGE), Err(ReadError::OutOfRange(_))));
        assert_eq!(range(u64::MAX - 1, u64::MAX), Ok((TimeNs::MAX, TimeNs::MAX)));
        assert!(matches!(range(9, 9), Err(ReadError::Invalid(_))));
    }
}
