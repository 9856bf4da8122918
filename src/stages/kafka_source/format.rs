//! How messages are written, and reading them.

use std::sync::Arc;

use barline_proto::barline::IngestBatch;
use prost::Message;
use serde::Deserialize;

use crate::codec::{Builders, ColumnarDecoder, Decoded, Interner, JsonDecoder, TikrDecoder};
use crate::model::TimeNs;
use crate::spec::Specs;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A `tikr.v1.IngestRequest`.
    Tikr,
    /// A `barline.v1.IngestBatch` that names every series it refers to.
    Barline,
    /// A JSON object per tick, or an array of them: `docs/fleet.md`.
    Json,
}

/// Reads messages of one format.
pub enum Decoder {
    Tikr(Box<TikrDecoder>),
    Barline(Arc<Specs>),
    Json(JsonDecoder),
}

impl Decoder {
    pub fn new(format: Format, specs: Arc<Specs>, spec: Option<String>) -> Self {
        match format {
            Format::Tikr => Self::Tikr(Box::new(TikrDecoder::new(specs))),
            Format::Barline => Self::Barline(specs),
            Format::Json => Self::Json(JsonDecoder::new(specs, spec)),
        }
    }

    /// Appends the ticks of a message that are taken; what became of them, by spec.
    ///
    /// # Errors
    /// It is no message of the format; then nothing of it was appended.
    pub fn decode(
        &mut self,
        message: &[u8],
        now: TimeNs,
        series: &dyn Interner,
        out: &mut Builders,
    ) -> Result<Vec<Decoded>, String> {
        match self {
            Self::Tikr(decoder) => {
                let decoded = decoder.decode(message, now, series, out).map_err(|error| error.to_string())?;
                Ok(vec![decoded])
            }
            Self::Barline(specs) => {
                let batch = IngestBatch::decode(message).map_err(|error| error.to_string())?;
                // A message has no stream before it whose series it could refer to.
                Ok(vec![ColumnarDecoder::new(specs.clone()).decode(&batch, now, series, out)])
            }
            Self::Json(decoder) => decoder.decode(message, now, series, out).map_err(|error| error.to_string()),
        }
    }
}
