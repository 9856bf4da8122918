//! The number of aggregator instances changes while ticks flow: no tick is lost or counted twice by it.

mod broken;
mod live;
mod sim;
