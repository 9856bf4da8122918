//! The way to the server: how long a broken one is tried again.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::connect::{self, Channel, Server};

/// How long the first attempt to connect again waits; each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// No attempt waits longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One connection's way to the server.
#[derive(Debug)]
pub struct Link {
    server: Server,
    patience: Duration,
    /// Since when nothing was acknowledged although it was tried.
    down_since: Option<Instant>,
    pause: Duration,
}

/// Why a stream ended too early.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// In words.
    pub why: String,
    /// Whether another attempt would end the same.
    pub lasting: bool,
}

impl Link {
    /// The way to `server`, tried again for `patience` after an acknowledgement was due.
    pub fn new(server: &Server, patience: Duration) -> Self {
        Self { server: server.clone(), patience, down_since: None, pause: FIRST_PAUSE }
    }

    /// Says that the server acknowledged something: it is well.
    pub fn well(&mut self) {
        self.down_since = None;
        self.pause = FIRST_PAUSE;
    }

    /// Connects again, with growing pauses.
    ///
    /// # Errors
    /// The stream broke for good, or the patience is at its end.
    pub async fn again(&mut self, broken: Broken) -> Result<Channel, String> {
        if broken.lasting || self.patience.is_zero() {
            return Err(broken.why);
        }
        let since = *self.down_since.get_or_insert_with(Instant::now);
        let mut why = broken.why;
        while since.elapsed() < self.patience {
            // Connections that broke together do not come back in step.
            tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            match connect::connect(&self.server).await {
                Ok(channel) => return Ok(channel),
                Err(problem) => why = problem,
            }
        }
        Err(format!(
            "gave up after {:.1} s without an acknowledgement, --reconnect-for sets how long is tried: {why}",
            since.elapsed().as_secs_f64()
        ))
    }
}

impl Broken {
    /// Another attempt may go better.
    pub fn passing(why: String) -> Self {
        Self { why, lasting: false }
    }

    /// Another attempt would end the same.
    pub fn lasting(why: String) -> Self {
        Self { why, lasting: true }
    }
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        let lasting = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
        );
        Self { why: format!("the stream broke: {:?}: {}", status.code(), status.message()), lasting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_counts_from_the_first_failure_and_begins_anew_with_an_acknowledgement() {
        let mut link = Link::new(&Server::open("http://127.0.0.1:1"), Duration::from_millis(200));
        let gone = || Broken::passing("gone".to_owned());
        let problem = link.again(gone()).await.unwrap_err();
        assert!(problem.starts_with("gave up after") && problem.contains("--reconnect-for"), "{problem}");
        assert!(problem.contains("cannot connect to http://127.0.0.1:1"), "{problem}");
        assert!(link.again(gone()).await.unwrap_err().ends_with("gone"), "nothing is left to try");
        link.well();
        assert!(link.again(gone()).await.unwrap_err().contains("cannot connect"));
    }

    #[tokio::test]
    async fn what_would_fail_again_is_not_tried_again() {
        let mut link = Link::new(&Server::open("http://127.0.0.1:1"), Duration::from_secs(3600));
        let wrong = Broken::from(Status::invalid_argument("no such field"));
        assert!(link.again(wrong).await.unwrap_err().contains("no such field"));
        let mut never = Link::new(&Server::open("http://127.0.0.1:1"), Duration::ZERO);
        assert_eq!(never.again(Broken::passing("gone".to_owned())).await.unwrap_err(), "gone");
    }
}
