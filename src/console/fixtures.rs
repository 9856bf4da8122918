//! What the tests of the console show: one spec with a few bars.

use crate::catalog::Catalog;
use crate::codec::Interner;
use crate::model::time::SECOND;
use crate::model::{BarBatch, BarFlags, SeriesKey, SpecId, TickBatch, TickSlice};
use crate::spec::{Specs, load_texts};
use crate::window::Windows;

const SPEC: &str = "
series: host_metrics
timestamp: {field: t, precision: nanosecond}
dimensions: [{name: host, type: string}, {name: resource, type: string}, {name: device, type: string}]
metrics:
  - {name: usage_max, field: usage, type: float64, aggregation: max, unit: '%'}
  - {name: used_last, field: used_bytes, type: uint64, aggregation: max, unit: By}
  - {name: samples, type: uint64, aggregation: count}
granularity: {rollup: 1s}
";

/// `host_metrics` with two metrics and its count.
pub fn specs() -> Specs {
    load_texts([("host_metrics.yaml".to_owned(), SPEC.to_owned())]).unwrap()
}

/// Series 0 is a core, 1 the RAM, the others are disks.
pub fn catalog(specs: &Specs) -> Catalog {
    let catalog = Catalog::new(specs);
    for series in 0..1_000 {
        let (resource, device) = match series {
            0 => ("cpu", "cpu0".to_owned()),
            1 => ("memory", "ram".to_owned()),
            _ => ("disk", format!("dev{series:03}")),
        };
        let key = SeriesKey::new([("host", "vm"), ("resource", resource), ("device", device.as_str())]).unwrap();
        catalog.intern(SpecId(0), &key).unwrap();
    }
    catalog
}

/// A bar of ten ticks for each of the first series: usage of the first, which is partial, used bytes of the others.
pub fn bars(series: usize, spec: SpecId) -> BarBatch {
    let specs = specs();
    let mut bars = BarBatch::new(spec);
    for series in 0..series as u32 {
        let mut closed = BarBatch::new(spec);
        let mut windows = Windows::new(specs.get(spec).clone());
        windows.apply(&TickSlice::whole(ticks(series).into(), 0), 0, &mut closed);
        windows.close_all(i64::MAX, &mut closed);
        let mut head = closed.heads[0];
        head.flags.set(BarFlags::PARTIAL, series == 0);
        bars.push(head, closed.state(&closed.heads[0]));
    }
    bars
}

fn ticks(series: u32) -> TickBatch {
    let mut batch = TickBatch::new(SpecId(0), 2);
    let (present, absent, bits) = if series == 0 { (0, 1, 12.5_f64.to_bits()) } else { (1, 0, 2 << 30) };
    for row in 0..10 {
        batch.series.push(series);
        batch.timestamps.push((i64::from(series) + 1) * SECOND);
        batch.fields[present].bits.push(bits);
        batch.fields[absent].bits.push(0);
        batch.fields[absent].set_absent(row);
    }
    batch
}
