//! A JSON document with one long array, streamed: rows go out as they are read, in pieces of tens of kilobytes.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::read::{Outlet, ReadError, scan};
use super::served::Served;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// The array being written.
pub struct Rows<'a> {
    outlet: &'a mut Outlet<Bytes>,
    piece: Vec<u8>,
    written: u64,
    limit: u64,
    truncated: bool,
}

impl Rows<'_> {
    /// Adds a row. One beyond the limit is not written, only noted; then, and when nobody reads any more, it breaks.
    pub fn push(&mut self, row: &impl Serialize) -> ControlFlow<()> {
        if self.written == self.limit {
            self.truncated = true;
            return ControlFlow::Break(());
        }
        if self.written > 0 {
            self.piece.push(b',');
        }
        self.written += 1;
        // Rows are strings and numbers in a buffer: there is nothing to fail on.
        let _ = serde_json::to_writer(&mut self.piece, row);
        if self.piece.len() < PIECE { ControlFlow::Continue(()) } else { self.give() }
    }

    /// Whether the client has gone away.
    pub fn gone(&self) -> impl Fn() -> bool + use<> {
        self.outlet.gone()
    }

    fn give(&mut self) -> ControlFlow<()> {
        self.outlet.give(std::mem::take(&mut self.piece).into())
    }
}

/// Replies `{"<name>":[rows],"truncated":bool}`; `fill` pushes the rows and should ask for one more than `limit`, so that
/// it is known whether there are more. An error before the first piece is a reply of its own; a later one breaks the
/// connection off, so that half a document never looks whole.
pub async fn document(
    served: &Arc<Served>,
    name: &'static str,
    limit: u64,
    fill: impl FnOnce(&Served, &mut Rows<'_>) -> Result<(), ReadError> + Send + 'static,
) -> Result<Response, ReadError> {
    let mut pieces = scan(served, move |served, outlet| {
        let piece = format!("{{\"{name}\":[").into_bytes();
        let mut rows = Rows { outlet, piece, written: 0, limit, truncated: false };
        fill(served, &mut rows)?;
        let end = format!("],\"truncated\":{}}}\n", rows.truncated);
        rows.piece.extend_from_slice(end.as_bytes());
        let _ = rows.give();
        Ok(())
    })?;
    let first = match pieces.next().await {
        Some(first) => first?,
        None => Bytes::new(),
    };
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(pieces));
    Ok(([("content-type", "application/json")], body).into_response())
}
