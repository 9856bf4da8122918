//! A barline that holds everything in memory, computes nothing cleverly, and lies when told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use barline_proto::{
    barline::{
        Bar, BarChunk, DimensionValues, GetLedgerRequest, GetTopologyRequest, IngestAck, IngestBatch, Ledger,
        ListDimensionValuesRequest, ListSeriesRequest, QueryBarsRequest, QueryTicksRequest, Rejection, SeriesChunk,
        SpecLedger, SubscribeBarsRequest, TickChunk, Topology,
        barline_server::{Barline, BarlineServer},
        value::Kind,
    },
    tikr::{
        BarData, BarQuery, Empty, IngestRequest, IngestResponse, SeriesList, ServerInfo, TickData, TickQuery,
        tikr_server::{Tikr, TikrServer},
    },
};
use store::{SPEC, State, bar};
use tokio::{net::TcpListener, runtime, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What the server gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// One bar's volume is one too high.
    WrongBar,
    /// One bar is missing.
    MissingBar,
    /// One tick never leaves its open window, says the ledger.
    Restless,
    /// The stream breaks after the first message.
    Breaks,
}

mod store;

/// A running server.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    fault: Fault,
}

impl Fake {
    /// Starts a server on a free port, on a thread of its own that ends with the test.
    pub fn start(fault: Fault) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let service = Service { state: Arc::default(), fault };
                let tikr = TikrServer::new(service.clone()).max_decoding_message_size(16 << 20);
                let router = Server::builder().add_service(tikr).add_service(BarlineServer::new(service));
                router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            });
        });
        Self { address: receiver.recv().unwrap() }
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
        if batch.spec == SPEC {
            dictionary.extend(batch.new_series.into_iter().map(|series| series.dimensions));
            let column = |name: &str| batch.fields.iter().find(|column| column.name == name).unwrap();
            let (prices, quantities) = (&column("price").ints, &column("quantity").uints);
            for row in 0..batch.timestamps.len() {
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
            if request.series != SPEC {
                self.state().unknown += request.ticks.len() as u64;
                *rejected.entry("unknown_series").or_default() += request.ticks.len() as u64;
                continue;
            }
            let mut state = self.state();
            for tick in request.ticks {
                let dimensions = tick.dimensions.into_iter().collect();
                let (price, quantity) = (tick.fields["price"], tick.fields["quantity"]);
                match state.take(dimensions, tick.timestamp_ns as i64, tick.sequence, price, quantity) {
                    None => accepted += 1,
                    Some(reason) => *rejected.entry(reason).or_default() += 1,
                }
            }
            if self.fault == Fault::Breaks {
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
    type QueryTicksStream = ReceiverStream<Result<TickChunk, Status>>;
    type ListSeriesStream = ReceiverStream<Result<SeriesChunk, Status>>;

    async fn ingest(&self, request: Request<Streaming<IngestBatch>>) -> Result<Response<Self::IngestStream>, Status> {
        let (acks, receiver) = mpsc::channel(4);
        let service = self.clone();
        tokio::spawn(async move {
            let mut batches = request.into_inner();
            let mut dictionary = Vec::new();
            while let Ok(Some(batch)) = batches.message().await {
                let ack = service.ingest_batch(batch, &mut dictionary);
                if acks.send(Ok(ack)).await.is_err() {
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
        unimplemented()
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

    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Result<Response<Topology>, Status> {
        unimplemented()
    }
}
