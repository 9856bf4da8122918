//! L4: what can be asked: queries over the store by gRPC (`tikr.v1`, `barline.v1`) and HTTP.
//!
//! Read in this order: [`served`] (what it is answered from), [`read`] (what is read, the same for every protocol),
//! then the protocols: [`admin`] (a Unix socket for operators), [`tikr`], [`barline`] with [`live`], [`tap`] and [`health`], put together by [`mod@grpc`]; [`mod@http`] with
//! [`params`], [`document`] and [`json`]; [`page`] (for browsers). [`balance`] looks after the ledger. [`convert`] and [`chunks`] make messages of rows, [`when`] reads times people write.

pub mod admin;
pub mod balance;
pub mod barline;
pub mod chunks;
pub mod convert;
pub mod document;
pub mod grpc;
pub mod health;
pub mod http;
pub mod json;
pub mod live;
pub mod page;
pub mod params;
pub mod read;
pub mod served;
pub mod tap;
pub mod tikr;
pub mod when;

pub use grpc::grpc;
pub use http::http;
pub use served::Served;
