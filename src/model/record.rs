//! A record as it goes to a broker.

use std::sync::Arc;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// What the partition is chosen by; empty but present where a bar has no dimensions.
    pub key: Vec<u8>,
    /// The encoded bar.
    pub value: Vec<u8>,
    /// Names and values, in this order.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Record {
    /// About the bytes it takes on the way.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.len() + headers
    }
}
