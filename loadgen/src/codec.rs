//! A tonic codec that sends messages already encoded.

use std::{marker::PhantomData, sync::Arc};

use bytes::BufMut;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    meter::Meter,
    wire::{Frame, Pool},
};

/// Sends [`Frame`]s and reads replies of type `R`.
#[derive(Debug)]
pub struct FrameCodec<R> {
    meter: Arc<Meter>,
    pool: Pool,
    reply: PhantomData<R>,
}

/// Measures each frame when HTTP/2 asks for it, which it does only while the server's window is open: what a
/// message waits before is backpressure.
#[derive(Debug)]
pub struct FrameEncoder {
    meter: Arc<Meter>,
    pool: Pool,
}

/// Reads replies with prost.
#[derive(Debug)]
pub struct ReplyDecoder<R>(PhantomData<R>);

impl<R> FrameCodec<R> {
    /// A codec that counts in `meter` and gives sent buffers back to `pool`.
    pub fn new(meter: Arc<Meter>, pool: Pool) -> Self {
        Self { meter, pool, reply: PhantomData }
    }
}

impl<R: Message + Default + Send + 'static> Codec for FrameCodec<R> {
    type Encode = Frame;
    type Decode = R;
    type Encoder = FrameEncoder;
    type Decoder = ReplyDecoder<R>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder { meter: self.meter.clone(), pool: self.pool.clone() }
    }

    fn decoder(&mut self) -> ReplyDecoder<R> {
        ReplyDecoder(PhantomData)
    }
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.len);
        out.put_slice(frame.bytes());
        self.meter.sent(frame.ticks, frame.len, frame.due);
        self.pool.give(frame.buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Every message goes out on its own: joining small ones would delay the first for the last.
        BufferSettings::new(64 * 1024, 1)
    }
}

impl<R: Message + Default> Decoder for ReplyDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(bytes).map(Some).map_err(|e| Status::internal(format!("the server's reply is malformed: {e}")))
    }
}
