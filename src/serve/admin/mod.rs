//! The operators' jobs over a Unix socket in the data directory. Whoever may use the directory may use the socket; no
//! port serves it.
//!
//! A job blocks, so it runs on a thread of its own and tells its progress through a channel. It ends when its client goes
//! away or the topology stops: every tool stops at the next step, and what it has written until then is whole.
//! A [`reload`] is done by whoever runs the process, in turn with jobs.

mod job;
pub mod reload;
mod scale;
pub mod socket;

use std::pin::Pin;
use std::sync::Arc;

use barline_proto::barline::admin_server::{Admin, AdminServer};
use barline_proto::barline::{
    BackupRequest, JobEvent, ReloadReply, ReloadRequest, ReplayRequest, ScaleReply, ScaleRequest, StatRequest,
    VerifyRequest,
};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status};

pub use reload::{Refused, ReloadReport, Reloads, Wish};

use super::read::ReadError;
use super::served::Served;
use crate::tools::Job;

/// Events of a job.
type Events = Pin<Box<dyn Stream<Item = Result<JobEvent, Status>> + Send>>;
type Reply = Result<Response<Events>, Status>;

/// The service.
pub struct AdminService {
    /// The generation that is at work.
    served: watch::Receiver<Arc<Served>>,
    reloads: Reloads,
}

impl AdminService {
    /// The service of a process.
    pub fn server(served: watch::Receiver<Arc<Served>>, reloads: Reloads) -> AdminServer<Self> {
        AdminServer::new(Self { served, reloads })
    }

    fn start(&self, job: Job) -> Reply {
        let place = take(&self.reloads.place)?;
        let served = self.served.borrow().clone();
        Ok(Response::new(Box::pin(job::start(served, job, place))))
    }
}

/// The place of the one job, if it is free.
fn take(place: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    place.clone().try_acquire_owned().map_err(|_| Refused::Busy.into())
}

#[tonic::async_trait]
impl Admin for AdminService {
    type ReplayStream = Events;
    type VerifyStream = Events;
    type BackupStream = Events;
    type StatStream = Events;

    async fn replay(&self, request: Request<ReplayRequest>) -> Reply {
        let job = job::replay(request.into_inner()).map_err(ReadError::Invalid)?;
        self.start(Job::Replay(Box::new(job)))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Reply {
        self.start(Job::Verify { repair: request.into_inner().repair })
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Reply {
        self.start(Job::Backup { directory: request.into_inner().directory.into() })
    }

    async fn scale(&self, request: Request<ScaleRequest>) -> Result<Response<ScaleReply>, Status> {
        let served = self.served.borrow().clone();
        scale::scale(&served, request.into_inner()).await.map(Response::new)
    }

    async fn stat(&self, _: Request<StatRequest>) -> Reply {
        self.start(Job::Stat)
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Result<Response<ReloadReply>, Status> {
        let report = self.reloads.ask().await?;
        // Numbers, strings and lists always have a JSON form.
        Ok(Response::new(ReloadReply { report: serde_json::to_string(&report).unwrap_or_default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_job_is_told_to_wait_and_may_begin_when_the_first_has_ended() {
        let place = Arc::new(Semaphore::new(1));
        let first = take(&place).unwrap();
        assert_eq!(take(&place).unwrap_err().code(), tonic::Code::FailedPrecondition);
        drop(first);
        assert!(take(&place).is_ok());
    }
}
