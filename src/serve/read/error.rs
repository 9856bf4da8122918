//! Why a query is not answered, as gRPC statuses and HTTP codes both tell it.

use http::StatusCode;
use tonic::Status;

use crate::store::StoreError;

/// Why a query is not answered. Every message names what was asked and what is known or allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It names something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Its time range is longer than the protocol allows.
    #[error("{0}")]
    OutOfRange(String),
    /// It asks for more than is given at once.
    #[error("{0}")]
    TooLarge(String),
    /// Too many queries run already, or its client does not take what it asked for.
    #[error("{0}")]
    Busy(String),
    /// The store failed, or this program did.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(message) => Self::not_found(message),
            ReadError::Invalid(message) => Self::invalid_argument(message),
            ReadError::OutOfRange(message) => Self::out_of_range(message),
            ReadError::TooLarge(message) | ReadError::Busy(message) => Self::resource_exhausted(message),
            ReadError::Failed(message) => Self::internal(message),
        }
    }
}

impl ReadError {
    /// The HTTP status of the reply.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) | Self::OutOfRange(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
