//! L1: bytes ⇄ model, one file per format. Pure: no I/O, no clock.
//!
//! Read in this order: [`admit`] (which ticks are taken, and what is said about the others), [`builders`]
//! (where taken ticks go), [`wire`] and [`varint`] (protobuf primitives), [`tikr`] (`tikr.v1` bytes
//! straight into columns, tick by tick through a [`draft`], with [`dictionary`] and [`layout`] as its memory of the
//! stream), [`columnar`] (`barline.v1` batches), [`block`] (the journal's compressed blocks: [`block_header`],
//! columns by [`pack`] and [`bitmap`], and [`extras`]). On the way out [`mod@bar`] writes bars for consumers elsewhere,
//! with [`proto`] where they want protobuf.

pub mod admit;
pub mod bar;
pub mod bitmap;
pub mod block;
pub mod block_header;
pub mod builders;
pub mod columnar;
mod columns;
pub mod dictionary;
pub mod draft;
pub mod extras;
pub mod layout;
pub mod pack;
pub mod proto;
mod restate;
pub mod tikr;
pub mod varint;
pub mod wire;

pub use admit::{Decoded, Interner, Malformed, Refusal, Rejection, Rejections};
pub use block::{Block, CorruptBlock};
pub use block_header::BlockHeader;
pub use builders::Builders;
pub use columnar::ColumnarDecoder;
pub use tikr::TikrDecoder;
