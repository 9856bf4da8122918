//! A door: a listening port that lets in a bounded number of visitors, so that connections cannot use up the process's
//! file descriptors.
//!
//! A connection beyond the bound is closed at once. One that says nothing at first is closed after a while; what
//! happens later is the protocol's business.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::guard::{Guard, Refused};
use super::tls::Line;

/// How long a new connection may say nothing.
const FIRST_WORDS: Duration = Duration::from_secs(10);
/// The pause after the operating system refused a connection: trying again at once would only burn a core.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// See the module's text.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    refused: Arc<Refused>,
}

/// A connection that has a place.
pub struct Visitor {
    line: Line,
    info: TcpConnectInfo,
    refused: Arc<Refused>,
    /// Until it has said something.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Door {
    /// A door at `listener` for the holders of `places` who speak `alpn`, where the guard wants TLS.
    pub fn new(listener: TcpListener, places: Arc<Semaphore>, guard: &Guard, alpn: &[u8]) -> Self {
        Self { listener, places, tls: guard.acceptor(alpn), refused: guard.refused.clone() }
    }

    /// The next visitor. Cancelling loses no connection that has a place.
    pub async fn next(&self) -> (Visitor, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let Ok(place) = self.places.clone().try_acquire_owned() else {
                        self.refused.crowded.fetch_add(1, Relaxed);
                        tracing::debug!(%address, "connection refused: every place is taken");
                        continue;
                    };
                    // Without it streams of small messages wait for the peer's delayed acknowledgements.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%address, "connection lost before it was used: {error}");
                        continue;
                    }
                    let silence = Some(Box::pin(tokio::time::sleep(FIRST_WORDS)));
                    let (info, refused) = (stream.connect_info(), self.refused.clone());
                    let line = match &self.tls {
                        None => Line::Plain(stream),
                        Some(tls) => Line::Shaking(Box::new(tls.accept(stream))),
                    };
                    return (Visitor { line, info, refused, silence, _place: place }, address);
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
            }
        }
    }

    /// All visitors, one after the other.
    pub fn visitors(self) -> impl Stream<Item = io::Result<Visitor>> {
        futures_util::stream::unfold(self, |door| async move {
            let (visitor, _) = door.next().await;
            Some((Ok(visitor), door))
        })
    }
}

impl axum::serve::Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected for Visitor {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl Visitor {
    /// Goes on with the handshake; one that fails is counted.
    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shaking = matches!(self.line, Line::Shaking(_));
        let shaken = self.line.poll_shaken(context);
        if let (true, Poll::Ready(Err(error))) = (shaking, &shaken) {
            self.refused.unshaken.fetch_add(1, Relaxed);
            tracing::debug!("handshake failed: {error}");
        }
        shaken
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(context))?;
        match &mut self.line {
            Line::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Line::Tls(stream) => Pin::new(stream).poll_read(context, into),
            Line::Shaking(_) | Line::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Where bytes go, once the handshake is made.
    fn poll_writer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn AsyncWrite>>> {
        ready!(self.poll_shaken(context))?;
        Poll::Ready(match &mut self.line {
            Line::Plain(stream) => Ok(Pin::<&mut TcpStream>::new(stream)),
            Line::Tls(stream) => Ok(Pin::<&mut TlsStream<TcpStream>>::new(stream)),
            Line::Shaking(_) | Line::Broken => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_bytes(context, into);
        if read.is_ready() {
            self.silence = None;
        }
        let silent = self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(context).is_ready());
        if !silent {
            return read;
        }
        self.silence = None;
        self.line = Line::Broken;
        self.refused.silent.fetch_add(1, Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_writer(context))?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_writer(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_writer(context))?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_writer(context))?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.line, Line::Plain(_))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_closed_and_a_place_comes_free_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Arc::new(Door::new(listener, Arc::new(Semaphore::new(1)), &Guard::default(), b"h2"));
        let mut first = TcpStream::connect(address).await.unwrap();
        let (mut visitor, _) = door.next().await;
        first.write_all(b"x").await.unwrap();
        assert_eq!(visitor.read_u8().await.unwrap(), b'x');
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.next().await }
        });
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0, "the second connection should have been closed");
        drop(visitor);
        let _third = TcpStream::connect(address).await.unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut visitor, _) = Door::new(listener, Arc::new(Semaphore::new(1)), &Guard::default(), b"h2").next().await;
        assert_eq!(visitor.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
