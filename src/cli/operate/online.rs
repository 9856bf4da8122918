//! A job done by the process that has the data directory.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use barline_proto::barline::admin_client::AdminClient;
use barline_proto::barline::job_event::Event;
use barline_proto::barline::{
    BackupRequest, JobEvent, ReloadRequest, ReplayRequest, ScaleReply, ScaleRequest, StatRequest, VerifyRequest,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::{Asked, Bar};
use crate::cli::Failure;
use crate::serve::admin::{ReloadReport, socket};
use crate::tools::{Job, Report, Step};

/// The largest report taken.
const MAX_MESSAGE: usize = 64 << 20;

/// A running barline.
pub(super) struct Running(PathBuf);

/// The barline that runs on a data directory, if one does.
///
/// # Errors
/// There is one, and this user may not talk to it.
pub(super) fn connect(data_dir: &Path) -> Result<Option<Running>, Failure> {
    let path = socket::path(data_dir);
    match UnixStream::connect(&path) {
        Ok(_) => Ok(Some(Running(path))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(Failure::start(format!("{}: {error}; run this as the user barline runs as", path.display())))
        }
        // No socket, one nobody listens at any more, or a path too long for one.
        Err(_) => Ok(None),
    }
}

impl Running {
    /// Sends the job and waits for its report.
    pub fn run(&self, asked: &Asked, bar: &mut Bar) -> Result<Report, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::start)?;
        runtime.block_on(async {
            let mut events = self.send(asked).await?;
            while let Some(event) = events.message().await.map_err(|status| failure(&status))? {
                match event.event {
                    Some(Event::Progress(step)) => {
                        let _ = bar.show(Step { what: &step.what, done: step.done, total: step.total });
                    }
                    Some(Event::Report(json)) => {
                        let other = |error| Failure::ran(format!("the report of the running barline: {error}"));
                        return serde_json::from_str(&json).map_err(other);
                    }
                    None => {}
                }
            }
            Err(Failure::ran("the running barline ended before the job did"))
        })
    }

    /// Has it read topology and specs again.
    pub fn reload(&self) -> Result<ReloadReport, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::start)?;
        runtime.block_on(async {
            let reply = self.client().await?.reload(ReloadRequest {}).await.map_err(|status| match status.code() {
                Code::Unknown | Code::Unavailable => Failure::ran("the running barline ended before it had reloaded"),
                _ => failure(&status),
            })?;
            let other = |error| Failure::ran(format!("the report of the running barline: {error}"));
            serde_json::from_str(&reply.into_inner().report).map_err(other)
        })
    }

    /// Changes how many instances of a stage are active, and waits until that is done.
    pub fn scale(&self, request: ScaleRequest) -> Result<ScaleReply, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::start)?;
        runtime.block_on(async {
            let reply = self.client().await?.scale(request).await;
            reply.map(tonic::Response::into_inner).map_err(|status| failure(&status))
        })
    }

    async fn client(&self) -> Result<AdminClient<Channel>, Failure> {
        let path = &self.0;
        let nobody = |error: tonic::transport::Error| Failure::start(format!("{}: {error}", path.display()));
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).map_err(nobody)?;
        let channel: Channel = endpoint.connect().await.map_err(nobody)?;
        Ok(AdminClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    async fn send(&self, asked: &Asked) -> Result<Streaming<JobEvent>, Failure> {
        let mut client = self.client().await?;
        let events = match &asked.job {
            Job::Replay(job) => {
                let (file, text) = asked.spec.clone().unwrap_or_default();
                let request = ReplayRequest {
                    file,
                    text,
                    ticks_of: job.ticks_of.clone().unwrap_or_default(),
                    from_ns: Some(job.from),
                    to_ns: Some(job.to),
                    examples: u32::try_from(job.examples).unwrap_or(u32::MAX),
                    install: job.install.is_some(),
                };
                client.replay(request).await
            }
            Job::Verify { repair } => client.verify(VerifyRequest { repair: *repair }).await,
            Job::Backup { directory } => {
                client.backup(BackupRequest { directory: directory.display().to_string() }).await
            }
            Job::Stat => client.stat(StatRequest {}).await,
        };
        events.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }
}

fn failure(status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument | Code::NotFound => Failure::input(status.message()),
        Code::FailedPrecondition => Failure::ran(status.message()),
        code => Failure::ran(format!("the running barline: {code}: {}", status.message())),
    }
}
