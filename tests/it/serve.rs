//! The query side as clients meet it: gRPC over a real socket, HTTP as bytes, on a store filled by hand.

mod ageing;
mod barline_v1;
mod cardinality;
mod fixture;
mod http;
mod infra;
mod tap;
mod tikr_v1;
