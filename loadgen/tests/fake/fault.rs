//! What the server gets wrong, and when.

use std::time::Duration;

use barline_proto::{barline::barline_server::BarlineServer, tikr::tikr_server::TikrServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::Service;

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
    /// Every stream breaks after the first message.
    Breaks,
    /// Now and then a stream breaks: before a message is taken, or after, unacknowledged.
    Cuts,
    /// The whole server is gone for a moment, again and again.
    Restarts,
    /// One acknowledged batch is not taken.
    Forgets,
    /// One batch is taken in part, and the stream breaks; then the server is gone.
    Tears,
    /// Batches sent again are taken again.
    TakesTwice,
}

/// With [`Fault::Restarts`]: messages that are taken between two restarts, and how many restarts there are.
const LIFE: u64 = 5;
const LIVES: u64 = 6;

impl Service {
    /// Serves, until the moment for a restart has come.
    pub async fn live(&self, listener: std::net::TcpListener, life: u64) {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let tikr = TikrServer::new(self.clone()).max_decoding_message_size(16 << 20);
        let router = Server::builder().add_service(tikr).add_service(BarlineServer::new(self.clone()));
        let over = async {
            while self.fault != Fault::Restarts || life > LIVES || self.state().messages < life * LIFE {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            served = router.serve_with_incoming(TcpListenerStream::new(listener)) => served.unwrap(),
            () = over => {}
        }
    }

    /// Counts a message; whether the stream breaks now, and whether the message is taken before it does.
    pub fn cut(&self) -> Option<bool> {
        let mut state = self.state();
        state.messages += 1;
        let message = state.messages;
        match self.fault {
            Fault::Cuts if message.is_multiple_of(7) => Some(message.is_multiple_of(2)),
            Fault::TakesTwice if message == 3 => Some(true),
            Fault::Tears if message >= 3 => Some(message == 3),
            Fault::Breaks => Some(true),
            _ => None,
        }
    }
}
