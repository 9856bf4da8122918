//! A barline that holds everything in memory, computes nothing cleverly, and lies when told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use barline_proto::{
    barline::{
        Bar, BarChunk, DimensionValues, GetLedgerRequest, GetSinksRequest, GetTopologyRequest, IngestAck, IngestBatch,
        Ledger, ListDimensionValuesRequest, ListSeriesRequest, QueryBarsRequest, QueryTicksRequest, Rejection,
        SeriesChunk, SinkList, SpecLedger, SubscribeBarsRequest, TapRequest, TapSample, TickChunk, Topology,
        barline_server::Barline, value::Kind,
    },
    tikr::{
        BarData, BarQuery, Empty, IngestRequest, IngestResponse, SeriesList, ServerInfo, TickData, TickQuery,
        tikr_server::Tikr,
    },
};
pub use fault::Fault;
use store::{SPEC, State, bar, tick};
use tokio::{runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

mod fault;
mod store;

/// A running server.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    service: Service,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    fault: Fault,
}

impl Fake {
    /// Starts a server on a free port, on a thread of its own that ends with the test.
    pub fn start(fault: Fault) -> Self {
        let service = Service { state: Arc::default(), fault };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn({
            let service = service.clone();
            move || {
                let mut listener = Some(listener);
                for life in 1.. {
                    let listener = listener.take().unwrap_or_else(|| std::net::TcpListener::bind(address).unwrap());
                    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    // Dropping the runtime drops the listener and every connection.
                    runtime.block_on(service.live(listener, life));
                    drop(runtime);
                    thread::sleep(Duration::from_millis(30));
                }
            }
        });
        Self { address, service }
    }

    /// A server that holds what this one holds, without its faults.
    pub fn healed(&self) -> Self {
        let healed = Self::start(Fault::None);
        *healed.service.state() = self.service.state().clone();
        healed
    }
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Takes one batch of the columnar wire.
    fn ingest_batch(&self, batch: IngestBatch, dictionary: &mut Vec<HashMap<String, String>>) -> IngestAck {
        let rows = batch.timestamps.len() as u64;
        let mut rejected: BTreeMap<&str, u64> = BTreeMap::new();
        let mut state = self.state();
        let first = state.taken.insert((batch.producer_id, batch.batch_id));
        if !first && self.fault != Fault::TakesTwice {
            if batch.spec == SPEC {
                dictionary.extend(batch.new_series.into_iter().map(|series| series.dimensions));
                state.duplicate += rows;
            } else {
                state.unknown += rows;
            }
            return IngestAck { batch_id: batch.batch_id, duplicate: rows, ..IngestAck::default() };
        }
        if self.fault == Fault::Forgets && state.taken.len() == 3 {
            state.accepted += rows;
            dictionary.extend(batch.new_series.into_iter().map(|series| series.dimensions));
            return IngestAck { batch_id: batch.batch_id, accepted: rows, ..IngestAck::default() };
        }
        let torn = self.fault == Fault::Tears && state.messages == 3;
        if batch.spec == SPEC {
            dictionary.extend(batch.new_series.into_iter().map(|series| series.dimensions));
            let column = |name: &str| batch.fields.iter().find(|column| column.name == name).unwrap();
            let (prices, quantities) = (&column("price").ints, &column("quantity").uints);
            for row in 0..if torn { 10 } else { batch.timestamps.len() } {
                let dimensions = dictionary[batch.series_index[row] as usize].clone().into_iter().collect();
                let (at, sequence) = (batch.timestamps[row], batch.sequences[row]);
                if let Some(reason) = state.take(dimensions, at, sequence, prices[row], quantities[row] as i64) {
                    *rejected.entry(reason).or_default() += 1;
                }
            }
        } else {
            state.unknown += rows;
            rejected.insert("unknown_series", rows);
        }
        let accepted = rows - rejected.values().sum::<u64>();
        let rejection =
            |(reason, rows): (&str, u64)| Rejection { reason: reason.to_owned(), rows, ..Rejection::default() };
        IngestAck {
            batch_id: batch.batch_id,
            accepted,
            rejected: rejected.into_iter().map(rejection).collect(),
            ..IngestAck::default()
        }
    }

    fn stored(&self) -> Vec<Bar> {
        let mut bars: Vec<Bar> =
            self.state().bars.iter().map(|((series, second), rows)| bar(series, *second, rows)).collect();
        let middle = bars.len() / 2;
        match self.fault {
            Fault::WrongBar => {
                let Some(Kind::Uint(volume)) = bars[middle].metrics.get_mut("volume").and_then(|v| v.kind.as_mut())
                else {
                    panic!("volume is a uint")
                };
                *volume += 1;
            }
            Fault::MissingBar => drop(bars.remove(middle)),
            _ => {}
        }
        bars
    }
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake does not do this"))
}

#[tonic::async_trait]
impl Tikr for Service {
    type QueryTicksStream = ReceiverStream<Result<TickData, Status>>;
    type QueryBarsStream = ReceiverStream<Result<BarData, Status>>;

    async fn ingest_ticks(
        &self,
        request: Request<Streaming<IngestRequest>>,
    ) -> Result<Response<IngestResponse>, Status> {
        let mut requests = request.into_inner();
        let mut rejected: BTreeMap<&str, u64> = BTreeMap::new();
        let mut accepted = 0;
        while let Some(request) = requests.message().await? {
            let cut = self.cut();
            if cut == Some(false) {
                return Err(Status::unavailable("the fake breaks"));
            }
            if request.series != SPEC {
                self.state().unknown += request.ticks.len() as u64;
                *rejected.entry("unknown_series").or_default() += request.ticks.len() as u64;
                continue;
            }
            for tick in request.ticks {
                let mut state = self.state();
                let dimensions = tick.dimensions.into_iter().collect();
                let (price, quantity) = (tick.fields["price"], tick.fields["quantity"]);
                match state.take(dimensions, tick.timestamp_ns as i64, tick.sequence, price, quantity) {
                    None => accepted += 1,
                    Some(reason) => *rejected.entry(reason).or_default() += 1,
                }
            }
            if cut.is_some() {
                return Err(Status::unavailable("the fake breaks"));
            }
        }
        let mut response = Response::new(IngestResponse { ticks_received: accepted });
        for (reason, ticks) in rejected {
            let key = format!("barline-rejected-{reason}").parse::<tonic::metadata::MetadataKey<_>>().unwrap();
            response.metadata_mut().insert(key, ticks.into());
        }
        Ok(response)
    }

    async fn query_ticks(&self, _: Request<TickQuery>) -> Result<Response<Self::QueryTicksStream>, Status> {
        unimplemented()
    }

    async fn query_bars(&self, _: Request<BarQuery>) -> Result<Response<Self::QueryBarsStream>, Status> {
        unimplemented()
    }

    async fn list_series(&self, _: Request<Empty>) -> Result<Response<SeriesList>, Status> {
        unimplemented()
    }

    async fn get_info(&self, _: Request<Empty>) -> Result<Response<ServerInfo>, Status> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl Barline for Service {
    type IngestStream = ReceiverStream<Result<IngestAck, Status>>;
    type SubscribeBarsStream = ReceiverStream<Result<BarChunk, Status>>;
    type QueryBarsStream = tokio_stream::Iter<std::vec::IntoIter<Result<BarChunk, Status>>>;
    type QueryTicksStream = tokio_stream::Iter<std::vec::IntoIter<Result<TickChunk, Status>>>;
    type ListSeriesStream = ReceiverStream<Result<SeriesChunk, Status>>;
    type TapStream = ReceiverStream<Result<TapSample, Status>>;

    async fn ingest(&self, request: Request<Streaming<IngestBatch>>) -> Result<Response<Self::IngestStream>, Status> {
        let (acks, receiver) = mpsc::channel(4);
        let service = self.clone();
        tokio::spawn(async move {
            let mut batches = request.into_inner();
            let mut dictionary = Vec::new();
            while let Ok(Some(batch)) = batches.message().await {
                let cut = service.cut();
                let ack = (cut != Some(false)).then(|| service.ingest_batch(batch, &mut dictionary));
                let reply = match (cut, ack) {
                    (None, Some(ack)) => Ok(ack),
                    _ => Err(Status::unavailable("the fake breaks")),
                };
                if acks.send(reply).await.is_err() || cut.is_some() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn query_bars(&self, request: Request<QueryBarsRequest>) -> Result<Response<Self::QueryBarsStream>, Status> {
        let request = request.into_inner();
        let bars: Vec<Bar> =
            self.stored().into_iter().filter(|b| (request.start_ns..request.end_ns).contains(&b.start_ns)).collect();
        let chunks = bars.chunks(100).map(|bars| Ok(BarChunk { bars: bars.to_vec(), ..BarChunk::default() }));
        Ok(Response::new(tokio_stream::iter(chunks.collect::<Vec<_>>())))
    }

    async fn get_ledger(&self, _: Request<GetLedgerRequest>) -> Result<Response<Ledger>, Status> {
        let state = self.state();
        let open = u64::from(self.fault == Fault::Restless && state.accepted > 0);
        let own = SpecLedger {
            spec: SPEC.to_owned(),
            received: state.accepted + state.duplicate + state.rejected.values().sum::<u64>(),
            duplicate: state.duplicate,
            accepted: state.accepted,
            in_bars: state.accepted - open,
            open,
            rejected: state.rejected.clone().into_iter().collect(),
            ..SpecLedger::default()
        };
        let rejected = HashMap::from([("unknown_series".to_owned(), state.unknown)]);
        let unknown = SpecLedger { rejected, received: state.unknown, ..SpecLedger::default() };
        Ok(Response::new(Ledger { specs: vec![own, unknown] }))
    }

    async fn subscribe_bars(
        &self,
        _: Request<SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        unimplemented()
    }

    async fn query_ticks(&self, _: Request<QueryTicksRequest>) -> Result<Response<Self::QueryTicksStream>, Status> {
        let state = self.state();
        let all = state.bars.iter().flat_map(|((series, _), rows)| rows.iter().map(move |row| (row, series)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(row, _)| (row.0, row.1, row.2));
        let ticks: Vec<_> = all.into_iter().map(|(row, series)| tick(series, row)).collect();
        let chunks = ticks.chunks(500).map(|ticks| Ok(TickChunk { ticks: ticks.to_vec() }));
        Ok(Response::new(tokio_stream::iter(chunks.collect::<Vec<_>>())))
    }

    async fn list_series(&self, _: Request<ListSeriesRequest>) -> Result<Response<Self::ListSeriesStream>, Status> {
        unimplemented()
    }

    async fn list_dimension_values(
        &self,
        _: Request<ListDimensionValuesRequest>,
    ) -> Result<Response<DimensionValues>, Status> {
        unimplemented()
    }

    async fn get_sinks(&self, _: Request<GetSinksRequest>) -> Result<Response<SinkList>, Status> {
        unimplemented()
    }

    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Result<Response<Topology>, Status> {
        unimplemented()
    }

    async fn tap(&self, _: Request<TapRequest>) -> Result<Response<Self::TapStream>, Status> {
        unimplemented()
    }
}
