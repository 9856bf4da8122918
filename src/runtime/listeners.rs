//! Listening sockets that outlive who accepts from them: while one generation of a process ends and the next begins,
//! connections wait in the socket's queue instead of being refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The listening sockets of a process, by address.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<BTreeMap<SocketAddr, TcpListener>>);

impl Listeners {
    /// A handle of the socket at `address`, which is bound if it is not yet. It does not block.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn at(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut held = self.lock();
        if let Some(listener) = held.get(&address) {
            return listener.try_clone();
        }
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        // Where any port will do each one who asks gets another.
        if address.port() != 0 {
            held.insert(address, listener.try_clone()?);
        }
        Ok(listener)
    }

    /// Gives up every socket whose address is none of `wanted`: it closes with the last handle of it.
    pub fn keep(&self, wanted: &[SocketAddr]) {
        self.lock().retain(|address, _| wanted.contains(address));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_socket_takes_connections_while_nobody_accepts_and_until_it_is_given_up() {
        let listeners = Listeners::default();
        let address = listeners.at("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        drop(listeners.at(address).unwrap());
        let _waiting = TcpStream::connect(address).unwrap();
        let next = listeners.at(address).unwrap();
        next.set_nonblocking(false).unwrap();
        next.accept().unwrap();
        drop(next);
        listeners.keep(&[]);
        TcpStream::connect(address).unwrap_err();
    }
}
