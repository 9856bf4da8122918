//! `barline query`: asks a running barline over `barline.v1`.

mod args;
pub(super) mod rows;
pub(super) mod sheet;

use std::future::Future;

use barline_proto::barline::barline_client::BarlineClient;
use barline_proto::barline::{
    GetLedgerRequest, GetSinksRequest, ListDimensionValuesRequest, ListSeriesRequest, QueryBarsRequest,
    QueryTicksRequest,
};
use barline_proto::tikr::tikr_client::TikrClient;
use barline_proto::tikr::{Empty, SeriesInfo};
use tonic::{Code, Status, Streaming};

use super::access::{Access, Channel};
use super::{Exit, Failure};
pub(super) use args::matching;
pub use args::{Format, QueryArgs, RangeArgs, SeriesArgs, What};
use rows::Names;
use sheet::Sheet;

/// The largest chunk taken.
const MAX_MESSAGE: usize = 64 << 20;

/// Asks, and prints the answer to stdout.
///
/// # Errors
/// The arguments make no sense to the server (exit code 2), nobody listens at the address (3), or the query fails (1).
pub async fn run(args: QueryArgs) -> Exit {
    let client = Client::connect(&args.addr, &args.access).await?;
    let sheet = Sheet::new(args.format, std::io::stdout().lock());
    match args.what {
        What::Bars { series, range, granularity } => client.bars(series, range, granularity, sheet).await,
        What::Ticks { series, range, late } => client.ticks(series, range, late, sheet).await,
        What::Series { spec: Some(spec), matches, exact, limit } => {
            client.series(SeriesArgs { spec, matches, exact }, limit, sheet).await
        }
        What::Series { spec: None, .. } => client.specs(sheet).await,
        What::Values { spec, dimension, matches, limit } => {
            client.values(SeriesArgs { spec, matches, exact: false }, dimension, limit, sheet).await
        }
        What::Ledger { spec } => client.ledger(spec.unwrap_or_default(), sheet).await,
        What::Sinks { sink } => client.sinks(sink.unwrap_or_default(), sheet).await,
    }
}

type Out = std::io::StdoutLock<'static>;

/// A connection to a running barline.
pub(super) struct Client {
    channel: Channel,
    addr: String,
}

impl Client {
    pub(super) async fn connect(addr: &str, access: &Access) -> Result<Self, Failure> {
        let addr = if addr.contains("://") { addr.to_owned() } else { format!("http://{addr}") };
        Ok(Self { channel: access.channel(&addr).await?, addr })
    }

    async fn bars(&self, series: SeriesArgs, range: RangeArgs, granularity: String, mut sheet: Sheet<Out>) -> Exit {
        let names = self.names(&series.spec).await?;
        let (start_ns, end_ns) = range.bounds()?;
        let (r#match, spec, limit) = (series.matching()?, series.spec, one_more(range.limit));
        let request = QueryBarsRequest { spec, r#match, start_ns, end_ns, granularity, limit };
        let mut chunks = self.ask(self.client().query_bars(request)).await?;
        let mut left = Left::new(range.limit);
        while let Some(chunk) = self.next(&mut chunks).await? {
            left.take(chunk.bars, |bar| rows::bar(&bar, &names, &mut sheet))?;
            sheet.flush()?;
        }
        left.end(sheet)
    }

    async fn ticks(&self, series: SeriesArgs, range: RangeArgs, late: bool, mut sheet: Sheet<Out>) -> Exit {
        let names = self.names(&series.spec).await?;
        let (start_ns, end_ns) = range.bounds()?;
        let (r#match, spec, limit) = (series.matching()?, series.spec, one_more(range.limit));
        let request = QueryTicksRequest { spec, r#match, start_ns, end_ns, limit, late };
        let mut chunks = self.ask(self.client().query_ticks(request)).await?;
        let mut left = Left::new(range.limit);
        while let Some(chunk) = self.next(&mut chunks).await? {
            left.take(chunk.ticks, |tick| rows::tick(&tick, &names, &mut sheet))?;
            sheet.flush()?;
        }
        left.end(sheet)
    }

    async fn series(&self, series: SeriesArgs, limit: u64, mut sheet: Sheet<Out>) -> Exit {
        let names = self.names(&series.spec).await?;
        let (r#match, spec) = (series.matching()?, series.spec);
        let request = ListSeriesRequest { spec, r#match, limit: one_more(limit) };
        let mut chunks = self.ask(self.client().list_series(request)).await?;
        let mut left = Left::new(limit);
        while let Some(chunk) = self.next(&mut chunks).await? {
            left.take(chunk.series, |series| rows::series(&series, &names, &mut sheet))?;
            sheet.flush()?;
        }
        left.end(sheet)
    }

    async fn specs(&self, mut sheet: Sheet<Out>) -> Exit {
        for info in self.infos().await? {
            rows::spec(&info, &mut sheet)?;
        }
        sheet.end()
    }

    async fn values(&self, series: SeriesArgs, dimension: String, limit: u64, mut sheet: Sheet<Out>) -> Exit {
        let (r#match, spec) = (series.matching()?, series.spec);
        let request = ListDimensionValuesRequest { spec, dimension: dimension.clone(), r#match, limit };
        let found = self.ask(self.client().list_dimension_values(request)).await?;
        for value in &found.values {
            rows::value(&dimension, value, &mut sheet)?;
        }
        if found.truncated {
            eprintln!("there are more values; raise --limit or match fewer series");
        }
        sheet.end()
    }

    async fn ledger(&self, spec: String, mut sheet: Sheet<Out>) -> Exit {
        for spec in self.ask(self.client().get_ledger(GetLedgerRequest { spec })).await?.specs {
            rows::ledger(&spec, &mut sheet)?;
        }
        sheet.end()
    }

    async fn sinks(&self, sink: String, mut sheet: Sheet<Out>) -> Exit {
        for sink in self.ask(self.client().get_sinks(GetSinksRequest { sink })).await?.sinks {
            rows::sink(&sink, &mut sheet)?;
        }
        sheet.end()
    }

    pub(super) fn client(&self) -> BarlineClient<Channel> {
        BarlineClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The specs this server has, with their dimensions and metrics in the file's order.
    pub(super) async fn infos(&self) -> Result<Vec<SeriesInfo>, Failure> {
        Ok(self.ask(TikrClient::new(self.channel.clone()).list_series(Empty {})).await?.series)
    }

    async fn names(&self, spec: &str) -> Result<Names, Failure> {
        let info = self.infos().await?.into_iter().find(|info| info.name == spec);
        Ok(Names::of(info.unwrap_or_default()))
    }

    pub(super) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failure> {
        call.await.map(tonic::Response::into_inner).map_err(|status| self.failure(&status))
    }

    pub(super) async fn next<T>(&self, chunks: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        chunks.message().await.map_err(|status| self.failure(&status))
    }

    fn failure(&self, status: &Status) -> Failure {
        match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange => Failure::input(status.message()),
            Code::Unauthenticated | Code::PermissionDenied => {
                let message = status.message();
                Failure::ran(format!("{}: {message}; give it with --token-file or BARLINE_TOKEN", self.addr))
            }
            Code::Unimplemented => Failure::ran(format!("{} does not speak barline.v1", self.addr)),
            code => Failure::ran(format!("{}: {code}: {}", self.addr, status.message())),
        }
    }
}

/// Rows still to print. One more than wanted is asked for, so that it is known whether there are more.
struct Left {
    limit: u64,
    left: u64,
    is_cut: bool,
}

impl Left {
    fn new(limit: u64) -> Self {
        Self { limit, left: if limit == 0 { u64::MAX } else { limit }, is_cut: false }
    }

    fn take<T>(&mut self, rows: Vec<T>, mut print: impl FnMut(T) -> Exit) -> Exit {
        for row in rows {
            if self.left == 0 {
                self.is_cut = true;
                break;
            }
            self.left -= 1;
            print(row)?;
        }
        Ok(())
    }

    fn end(self, sheet: Sheet<Out>) -> Exit {
        if self.is_cut {
            eprintln!("there are more than {} rows; narrow the range or raise --limit (0 for all)", self.limit);
        }
        sheet.end()
    }
}

fn one_more(limit: u64) -> u64 {
    if limit == 0 { 0 } else { limit.saturating_add(1) }
}
