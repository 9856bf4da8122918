//! A door: a listening port that lets in a bounded number of visitors, so that connections cannot use up the process's
//! file descriptors.
//!
//! Who comes while every place is taken takes that of an idle one, see [`places`](super::places). One that does not say in
//! time what it wants is closed: over TLS it has to end its handshake, over gRPC to send HTTP/2's preface, over HTTP the
//! head of a request. What happens later is the protocol's business.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::IncomingStream;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guard::Guard;
use super::places::{Asked, Peer, Place, Places};
use super::refusals::{Reason, Refusals};
use super::tls::Line;

/// The pause after the operating system refused a connection: trying again at once would only burn a core.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// The bytes of HTTP/2's connection preface, which a client sends at once.
const PREFACE: usize = 24;

/// What is spoken behind a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC, on HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// See the module's text.
pub struct Door {
    listener: TcpListener,
    places: Arc<Places>,
    speaks: Speaks,
    tls: Option<TlsAcceptor>,
    patience: Duration,
    refusals: Arc<Refusals>,
}

/// A connection that has a place.
pub struct Visitor {
    line: Line,
    place: Place,
    address: SocketAddr,
    speaks: Speaks,
    refusals: Arc<Refusals>,
    /// Bytes it has sent, once decrypted.
    heard: usize,
    /// Until it has said what it wants.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Door {
    /// A door at `listener` with these places, with TLS where `guard` wants it.
    pub fn new(listener: TcpListener, places: Arc<Places>, guard: &Guard, speaks: Speaks) -> Self {
        let alpn: &[u8] = match speaks {
            Speaks::Grpc => b"h2",
            Speaks::Http => b"http/1.1",
        };
        let (tls, patience) = (guard.acceptor(alpn), guard.limits.handshake());
        Self { listener, places, speaks, tls, patience, refusals: guard.refusals.clone() }
    }

    /// The next visitor. Cancelling loses no connection that has a place.
    pub async fn next(&self) -> (Visitor, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(visitor) = self.seat(stream, address) {
                        return (visitor, address);
                    }
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
            }
        }
    }

    /// Gives a connection a place, if there is one.
    fn seat(&self, stream: TcpStream, address: SocketAddr) -> Option<Visitor> {
        let place = match self.places.ask() {
            Asked::Free(place) => place,
            Asked::Evicted(place) => {
                self.refusals.note(Reason::Evicted, format_args!("an idle connection gives its place to {address}"));
                place
            }
            Asked::Full => {
                self.refusals.note(Reason::Full, format_args!("{address}: every connection is busy, no place is left"));
                return None;
            }
        };
        // Without it streams of small messages wait for the peer's delayed acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, "connection lost before it was used: {error}");
            return None;
        }
        let line = match &self.tls {
            None => Line::Plain(stream),
            Some(tls) => Line::Shaking(Box::new(tls.accept(stream))),
        };
        let silence = Some(Box::pin(tokio::time::sleep(self.patience)));
        let (speaks, refusals) = (self.speaks, self.refusals.clone());
        Some(Visitor { line, place, address, speaks, refusals, heard: 0, silence })
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

/// What tonic gives to every request of a connection.
impl tonic::transport::server::Connected for Visitor {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.place.peer()
    }
}

/// What axum gives to every request of a connection.
impl axum::extract::connect_info::Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().place.peer()
    }
}

impl Visitor {
    /// Goes on with the handshake; one that fails is counted.
    fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shaking = matches!(self.line, Line::Shaking(_));
        let shaken = self.line.poll_shaken(context);
        if let (true, Poll::Ready(Err(error))) = (shaking, &shaken) {
            self.refusals.note(Reason::Handshake, format_args!("{}: TLS handshake: {error}", self.address));
        }
        // HTTP/2 writes before it reads, so a handshake that does not end may be met here first.
        if shaken.is_pending()
            && let Poll::Ready(why) = self.poll_close(context)
        {
            self.line = Line::Broken;
            return Poll::Ready(Err(why));
        }
        shaken
    }

    /// Whether it has said what it wants.
    fn has_spoken(&self) -> bool {
        match self.speaks {
            Speaks::Grpc => self.heard >= PREFACE,
            Speaks::Http => self.place.has_asked(),
        }
    }

    /// Ready when nothing more is waited for.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.place.poll_evicted(context).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        if self.has_spoken() {
            self.silence = None;
        }
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        ready!(silence.as_mut().poll(context));
        self.silence = None;
        self.refusals.note(Reason::Slow, format_args!("{}: it did not say in time what it wants", self.address));
        Poll::Ready(io::ErrorKind::TimedOut.into())
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
        let before = into.filled().len();
        let read = self.poll_bytes(context, into);
        if read.is_ready() {
            self.heard += into.filled().len() - before;
            return read;
        }
        let why = ready!(self.poll_close(context));
        self.line = Line::Broken;
        Poll::Ready(Err(why))
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

    async fn door(places: usize, speaks: Speaks) -> (Door, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Door::new(listener, Places::new(places), &Guard::default(), speaks), address)
    }

    #[tokio::test]
    async fn while_all_are_busy_a_further_connection_is_closed_and_a_place_comes_free_again() {
        let (door, address) = door(1, Speaks::Grpc).await;
        let door = Arc::new(door);
        let mut first = TcpStream::connect(address).await.unwrap();
        let (mut visitor, _) = door.next().await;
        let call = visitor.place.peer().begin();
        first.write_all(b"x").await.unwrap();
        assert_eq!(visitor.read_u8().await.unwrap(), b'x');
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.next().await }
        });
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0, "the second connection should have been closed");
        assert_eq!(door.refusals.count(Reason::Full), 1);
        drop((visitor, call));
        let _third = TcpStream::connect(address).await.unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_gives_way() {
        let (door, address) = door(1, Speaks::Grpc).await;
        let _idle = TcpStream::connect(address).await.unwrap();
        let (mut visitor, _) = door.next().await;
        let _next = TcpStream::connect(address).await.unwrap();
        let (closed, _) = tokio::join!(visitor.read_u8(), door.next());
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(door.refusals.count(Reason::Evicted), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_come_to_the_point_is_closed() {
        for (speaks, says) in
            [(Speaks::Http, "GET / HTTP/1.1\r\n"), (Speaks::Grpc, "PRI * HTTP/2.0\r\n"), (Speaks::Grpc, "")]
        {
            let (door, address) = door(1, speaks).await;
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(says.as_bytes()).await.unwrap();
            let (mut visitor, _) = door.next().await;
            let mut said = String::new();
            assert_eq!(visitor.read_to_string(&mut said).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(door.refusals.count(Reason::Slow), 1, "{said}");
        }
    }
}
