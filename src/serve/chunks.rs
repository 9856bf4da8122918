//! Rows gathered into chunks of about a thousand, bounded in bytes too: what gRPC clients are streamed.

use std::ops::ControlFlow;

use crate::serve::read::Outlet;

/// The most rows of a chunk.
pub const ROWS: usize = 1000;
/// Bytes after which a chunk is closed: well below the 4 MiB that gRPC clients take by default.
const BYTES: usize = 1 << 20;

/// A chunk being filled.
pub struct Chunks<'a, T> {
    outlet: &'a mut Outlet<Vec<T>>,
    rows: Vec<T>,
    bytes: usize,
}

impl<'a, T> Chunks<'a, T> {
    /// An empty chunk that goes to `outlet` when it is full.
    pub fn new(outlet: &'a mut Outlet<Vec<T>>) -> Self {
        Self { outlet, rows: Vec::new(), bytes: 0 }
    }

    /// Adds a row of about `bytes` bytes; breaks when nobody takes them any more.
    pub fn push(&mut self, row: T, bytes: usize) -> ControlFlow<()> {
        self.rows.push(row);
        self.bytes += bytes;
        if self.rows.len() < ROWS && self.bytes < BYTES { ControlFlow::Continue(()) } else { self.flush() }
    }

    /// Gives what there is.
    pub fn flush(&mut self) -> ControlFlow<()> {
        self.bytes = 0;
        match std::mem::take(&mut self.rows) {
            rows if rows.is_empty() => ControlFlow::Continue(()),
            rows => self.outlet.give(rows),
        }
    }
}
