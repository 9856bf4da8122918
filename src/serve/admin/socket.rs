//! The socket: `admin.sock` in the data directory, for its owner only, there as long as the process is.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixSocket};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::{AdminService, Reloads};
use crate::serve::Served;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 16;

/// Where the socket of a data directory is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// A socket that is served; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Open(PathBuf);

impl Drop for Open {
    fn drop(&mut self) {
        // One that stays is replaced by the next process.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves jobs and reloads until `stop` is cancelled. Where the socket cannot be had the process goes on without, and says so.
pub fn open(served: watch::Receiver<Arc<Served>>, reloads: Reloads, stop: CancellationToken) -> Option<Open> {
    let path = path(served.borrow().plan.data_dir.as_deref()?);
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                "no operator command reaches this process: {error}; a socket's path has at most 107 bytes, give a shorter --data-dir"
            );
            return None;
        }
    };
    let open = Open(path.clone());
    tokio::spawn(async move {
        let router = Server::builder().add_service(AdminService::server(served, reloads));
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            tracing::error!("{}: {error}", path.display());
        }
    });
    Some(open)
}

/// Binds the socket. One that is there was left by a process that is no more: this one has the data directory.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Before anybody can connect.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}
