//! Everything that is tested from outside the modules, in one binary.

mod backup;
mod binary;
mod crash;
mod deploy;
mod disk;
mod exactly_once;
mod harness;
mod kafka;
mod layers;
mod lives;
mod malformed;
mod naive;
mod operate;
mod power;
mod replay;
mod scripted;
mod security;
mod serve;
mod sim;
mod sinks;
mod stall;
mod store_contract;
mod telemetry;
mod verify;
mod window_model;
mod wire_oracle;
