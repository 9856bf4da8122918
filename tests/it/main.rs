//! Everything that is tested from outside the modules, in one binary.

mod binary;
mod crash;
mod exactly_once;
mod harness;
mod layers;
mod malformed;
mod naive;
mod scripted;
mod serve;
mod sim;
mod stall;
mod store_contract;
mod window_model;
mod wire_oracle;
