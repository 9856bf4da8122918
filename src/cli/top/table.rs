//! The rows of `barline top`, the same for the live view and for the plain table.

use super::clean;
use crate::telemetry::Load;
use crate::telemetry::load::{InstanceLoad, LedgerLoad, Pressure, short, span};

/// What the columns are called; the first three are words.
pub const COLUMNS: [&str; 11] =
    ["stage", "instance", "state", "in/s", "out/s", "lag", "mailbox", "busy", "idle", "waiting", "errors"];

/// How wide the columns are.
pub const WIDTHS: [usize; 11] = [14, 8, 9, 8, 8, 9, 11, 6, 6, 7, 6];

/// What rows can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the ticks flow.
    Flow,
    /// The longest lag first.
    Lag,
    /// The highest rate first.
    Rate,
    /// The busiest first.
    Busy,
}

/// One row.
pub struct Row {
    /// The text of its columns.
    pub cells: [String; 11],
    /// Where the instance stands in a chain of backpressure.
    pub pressure: Pressure,
}

/// The rows of all instances.
pub fn rows(load: &Load, order: Order) -> Vec<Row> {
    let of = |stage: &'_ crate::telemetry::load::StageLoad| {
        stage.instances.iter().map(|instance| (stage.name.clone(), instance.clone())).collect::<Vec<_>>()
    };
    let mut found: Vec<(String, InstanceLoad)> = load.stages.iter().flat_map(of).collect();
    let rank = |instance: &InstanceLoad| match order {
        Order::Flow => 0.0,
        Order::Lag => instance.lag,
        Order::Rate => instance.rate(),
        Order::Busy => instance.busy,
    };
    found.sort_by(|a, b| rank(&b.1).total_cmp(&rank(&a.1)));
    found.iter().map(|(stage, instance)| row(stage, instance)).collect()
}

fn row(stage: &str, load: &InstanceLoad) -> Row {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let pressure = load.pressure();
    let state = match (load.up, pressure) {
        (true, _) if !load.active => "standby",
        (_, Pressure::Pressed) => "waits",
        (false, _) => "not up",
        (true, Pressure::None) => "ok",
        (true, Pressure::Limiting) => "limits",
    };
    let is_source = load.capacity == 0.0;
    let cells = [
        clean(stage),
        clean(&load.instance),
        state.to_owned(),
        short(load.items_in),
        short(load.items_out),
        if is_source { "-".to_owned() } else { span(load.lag) },
        if is_source { "-".to_owned() } else { format!("{:.0}/{:.0}", load.depth, load.capacity) },
        percent(load.busy),
        percent(load.idle),
        percent(load.backpressured),
        format!("{:.0}", load.restarts + load.poisoned),
    ];
    Row { cells, pressure }
}

/// The ledger in one line.
pub fn ledger(ledger: &LedgerLoad) -> String {
    let LedgerLoad { accepted, in_bars, open, in_flight, dropped, rejected, duplicate } = ledger;
    let [accepted, in_bars, open, in_flight, dropped, rejected, duplicate] =
        [accepted, in_bars, open, in_flight, dropped, rejected, duplicate].map(|count| short(*count));
    format!(
        "ledger: accepted {accepted} = in bars {in_bars} + open {open} + in flight {in_flight} + dropped {dropped}; \
         rejected {rejected}, duplicate {duplicate}"
    )
}

/// One line of cells: words to the left, numbers to the right.
pub fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let cell = cell.as_ref();
        text += &if index < 3 { format!("{cell:<width$} ") } else { format!("{cell:>width$} ") };
    }
    text.trim_end().to_owned()
}

/// Everything as plain text.
pub fn plain(load: &Load) -> String {
    let mut text = format!("{}, up {}\n\n{}\n", clean(&load.topology), span(load.uptime), line(&COLUMNS));
    for row in rows(load, Order::Flow) {
        text += &line(&row.cells);
        text.push('\n');
    }
    text + "\n" + &ledger(&load.ledger) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::load::StageLoad;

    #[test]
    fn rows_stand_in_the_order_asked_for_and_under_their_heads() {
        let instance = |lag| InstanceLoad {
            instance: "0".to_owned(),
            up: true,
            active: true,
            capacity: 8.0,
            lag,
            ..Default::default()
        };
        let stage =
            |name: &str, lag| StageLoad { name: name.to_owned(), kind: String::new(), instances: vec![instance(lag)] };
        let stages = vec![stage("route", 0.1), stage("write", 2.0)];
        let (topology, ledger, refused) = ("edge".to_owned(), LedgerLoad::default(), Default::default());
        let load = Load { topology, at_ns: 0, uptime: 1.0, stages, ledger, refused };
        let names = |order| rows(&load, order).into_iter().map(|row| row.cells[0].clone()).collect::<Vec<_>>();
        assert_eq!(names(Order::Flow), ["route", "write"]);
        assert_eq!(names(Order::Lag), ["write", "route"]);
        let plain = plain(&load);
        let [head, row] = [2, 4].map(|line| plain.lines().nth(line).unwrap());
        assert_eq!(head.find("lag").unwrap() + 3, row.find("2.0 s").unwrap() + 5, "{plain}");
    }
}
