//! `tikr`: the bare `ResourceMetrics` that tikr sends, byte for byte, for consumers that parse it as they always did.
//!
//! What is odd about it is kept: metrics sorted by name, the tick count added also where the spec has a metric of that
//! name, the first tick's time as start and the window's start as time, the value behind the attributes. It carries
//! integers only: others are rounded.

use super::otlp::attribute;
use super::{Outgoing, unsigned};
use crate::codec::proto::{fixed64, fixed64_always, message, text};

/// The version of tikr whose bytes these are.
const VERSION: &str = "0.1.0";

/// Appends `bar`.
pub fn write(service: &str, bar: &Outgoing<'_>, out: &mut Vec<u8>) {
    let ticks = i64::try_from(bar.ticks()).unwrap_or(i64::MAX);
    let mut metrics: Vec<_> = bar.present().map(|(metric, value)| (metric.name.as_str(), value.to_int())).collect();
    metrics.push(("tick_count", ticks));
    metrics.sort_by_key(|(name, _)| *name);
    message(out, 1, |out| {
        attribute(out, 1, "service.name", service);
        attribute(out, 1, "tikr.series", &bar.spec.name);
    });
    message(out, 2, |out| {
        message(out, 1, |out| {
            text(out, 1, "tikr");
            text(out, 2, VERSION);
        });
        metrics.iter().for_each(|(name, value)| write_metric(bar, name, *value, out));
    });
}

fn write_metric(bar: &Outgoing<'_>, name: &str, value: i64, out: &mut Vec<u8>) {
    message(out, 2, |out| {
        text(out, 1, &format!("{}.{name}", bar.spec.name));
        message(out, 5, |out| {
            message(out, 1, |out| {
                fixed64(out, 2, unsigned(bar.head.first));
                fixed64(out, 3, unsigned(bar.head.start));
                bar.key.dimensions().for_each(|(name, value)| attribute(out, 7, name, value));
                fixed64_always(out, 6, value as u64);
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
    use proptest::prelude::*;
    use prost::Message;

    use super::super::testing::{sample, samples};
    use super::*;

    /// What tikr 0.3.0 wrote for [`sample`].
    const REFERENCE: &str = "0a370a160a0c736572766963652e6e616d6512060a0474696b720a1d0a0b74696b722e736572696573120e0a0c6d61726b65745f7469636b731287040a0d0a0474696b721205302e312e3012450a126d61726b65745f7469636b732e636c6f73652a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c31664400000000000012440a116d61726b65745f7469636b732e686967682a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c318e4400000000000012430a106d61726b65745f7469636b732e6c6f772a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c31484400000000000012440a116d61726b65745f7469636b732e6f70656e2a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c317044000000000000124a0a176d61726b65745f7469636b732e7469636b5f636f756e742a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c310500000000000000124a0a176d61726b65745f7469636b732e7469636b5f636f756e742a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c31050000000000000012460a136d61726b65745f7469636b732e766f6c756d652a2f0a2d11a0862b36fe9c97171900002a36fe9c97173a100a0673796d626f6c12060a044141504c31c201000000000000";

    #[test]
    fn the_bytes_are_tikrs() {
        let mut out = Vec::new();
        write("tikr", &sample().outgoing(), &mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((out.len(), hex.as_str()), (579, REFERENCE));
    }

    proptest! {
        #[test]
        fn every_bar_is_resource_metrics(sample in samples()) {
            let mut out = Vec::new();
            write("tikr", &sample.outgoing(), &mut out);
            let decoded = ResourceMetrics::decode(&out[..]).unwrap();
            let present = sample.metrics.iter().flatten().count();
            prop_assert_eq!(decoded.scope_metrics[0].metrics.len(), present + 1);
        }
    }
}
