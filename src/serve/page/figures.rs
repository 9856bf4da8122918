//! The live figures of the page under the keys its elements carry: rendered into the page, and sent again every second.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::telemetry::Load;
use crate::telemetry::load::{InstanceLoad, Pressure, StageLoad, short, span};

/// How wide the bars of the graph are, in units of the drawing.
pub const BAR: f64 = 148.0;

/// A stage whose lag is so many seconds is said to be behind.
const BEHIND: f64 = 5.0;

/// Texts, sizes and classes by key.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// What an element says.
    pub text: BTreeMap<String, String>,
    /// Where a bar begins.
    pub x: BTreeMap<String, f64>,
    /// How wide a bar is.
    pub width: BTreeMap<String, f64>,
    /// What an element stands for: the class after its own.
    pub state: BTreeMap<String, &'static str>,
}

impl Figures {
    /// The figures of `load`.
    pub fn new(load: &Load) -> Self {
        let mut figures = Self::default();
        load.stages.iter().for_each(|stage| figures.stage(stage));
        let ledger = &load.ledger;
        let counts = [
            ("accepted", ledger.accepted),
            ("rejected", ledger.rejected),
            ("duplicate", ledger.duplicate),
            ("in_bars", ledger.in_bars),
            ("open", ledger.open),
            ("in_flight", ledger.in_flight),
            ("dropped", ledger.dropped),
        ];
        for (name, count) in counts {
            figures.say(format!("ledger.{name}"), grouped(count));
        }
        for (reason, count) in &load.refused {
            figures.say(format!("refused.{reason}"), grouped(*count));
        }
        figures.say("uptime".to_owned(), span(load.uptime));
        figures.say("verdict".to_owned(), verdict(load));
        let pressed = load.stages.iter().any(|stage| stage.pressure() != Pressure::None);
        figures.state.insert("verdict".to_owned(), if pressed { "limiting" } else { "free" });
        figures
    }

    /// What the element with this key says.
    pub fn text(&self, key: &str) -> &str {
        self.text.get(key).map_or("–", String::as_str)
    }

    /// The class that tells an element's state.
    pub fn state(&self, key: &str) -> &'static str {
        self.state.get(key).copied().unwrap_or("free")
    }

    fn stage(&mut self, stage: &StageLoad) {
        let (key, total) = (format!("s.{}", stage.name), stage.total());
        self.instance(&key, &total);
        self.bars(&key, &total);
        self.say(format!("{key}.room"), room(&total).to_owned());
        let taken = total.spool.map_or_else(|| self.text(&format!("{key}.depth")).to_owned(), percent);
        self.say(format!("{key}.taken"), taken);
        self.state.insert(key.clone(), state(stage.pressure()));
        let (active, all) = (stage.active(), stage.instances.len());
        let count = if active == all { format!(" ×{all}") } else { format!(" ×{active} of {all}") };
        self.say(format!("{key}.count"), count);
        // A lane into the stage is drawn by how full the fullest mailbox is.
        let fill = stage.instances.iter().map(InstanceLoad::fill).fold(0.0, f64::max);
        self.state.insert(format!("{key}.lane"), if fill >= 0.5 { "full" } else { "free" });
        for instance in &stage.instances {
            let key = format!("i.{}.{}", stage.name, instance.instance);
            self.instance(&key, instance);
            self.state.insert(key.clone(), state(instance.pressure()));
            self.quantiles(&key, instance);
        }
    }

    fn instance(&mut self, key: &str, load: &InstanceLoad) {
        self.say(format!("{key}.rate"), format!("{}/s", short(load.rate())));
        self.say(format!("{key}.out"), format!("{}/s", short(load.items_out)));
        self.say(format!("{key}.lag"), if load.capacity > 0.0 { span(load.lag) } else { "–".to_owned() });
        self.say(format!("{key}.busy"), percent(load.busy));
        self.say(format!("{key}.idle"), percent(load.idle));
        self.say(format!("{key}.backpressured"), percent(load.backpressured));
        self.say(format!("{key}.errors"), format!("{:.0}", load.restarts + load.poisoned));
        let depth = format!("{:.0} / {:.0}", load.depth, load.capacity);
        self.say(format!("{key}.depth"), if load.capacity > 0.0 { depth } else { "no mailbox".to_owned() });
        self.say(format!("{key}.up"), up(load).to_owned());
        self.say(format!("{key}.restarts"), format!("{:.0}", load.restarts));
        self.say(format!("{key}.poisoned"), format!("{:.0}", load.poisoned));
    }

    fn bars(&mut self, key: &str, load: &InstanceLoad) {
        let width = |share: f64| (share.clamp(0.0, 1.0) * BAR * 10.0).round() / 10.0;
        let busy = width(load.busy);
        self.width.insert(format!("{key}.bar.busy"), busy);
        self.x.insert(format!("{key}.bar.backpressured"), busy);
        self.width.insert(format!("{key}.bar.backpressured"), width(load.backpressured).min(BAR - busy));
        self.width.insert(format!("{key}.bar.fill"), width(load.fill()));
    }

    fn quantiles(&mut self, key: &str, load: &InstanceLoad) {
        for (name, times) in [("queue", &load.queue), ("handling", &load.handling)] {
            for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
                let value = times.quantile(share).map_or("–".to_owned(), span);
                self.say(format!("{key}.{name}.{label}"), value);
            }
        }
        for (name, value) in [("windows", load.windows.map(grouped)), ("watermark", load.watermark_delay.map(span))] {
            self.say(format!("{key}.{name}"), value.unwrap_or_else(|| "–".to_owned()));
        }
    }

    fn say(&mut self, key: String, text: String) {
        self.text.insert(key, text);
    }
}

/// One sentence: which stage is the bottleneck, and who waits for it.
fn verdict(load: &Load) -> String {
    let of = |wanted| load.stages.iter().filter(move |stage| stage.pressure() == wanted);
    let waiting: Vec<&str> = of(Pressure::Pressed).map(|stage| &*stage.name).collect();
    let wait = if waiting.len() == 1 { "waits" } else { "wait" };
    let behind = load.stages.iter().map(|stage| (stage.total().lag, &stage.name)).max_by(|a, b| a.0.total_cmp(&b.0));
    // Nobody downstream of the last one that limits waits: that is where it begins.
    match (of(Pressure::Limiting).next_back(), waiting.is_empty(), behind) {
        (Some(stage), false, _) => format!("{} is the bottleneck; {} {wait} for it", stage.name, waiting.join(", ")),
        (Some(stage), true, _) => format!("the {} of {} fills up; nobody waits yet", room(&stage.total()), stage.name),
        (None, false, _) => format!("{} {wait} for room downstream", waiting.join(", ")),
        (None, true, Some((lag, stage))) if lag >= BEHIND => format!("nobody waits; {stage} is {} behind", span(lag)),
        (None, true, _) => "nothing waits: every stage takes what comes".to_owned(),
    }
}

/// Where what a stage has not taken yet waits.
fn room(load: &InstanceLoad) -> &'static str {
    if load.spool.is_some() { "spool" } else { "mailbox" }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn up(load: &InstanceLoad) -> &'static str {
    match (load.up, load.active) {
        (false, _) => "not running",
        (true, true) => "running",
        (true, false) => "on standby",
    }
}

fn state(pressure: Pressure) -> &'static str {
    match pressure {
        Pressure::None => "free",
        Pressure::Pressed => "pressed",
        Pressure::Limiting => "limiting",
    }
}

/// A count with its thousands apart: `12,345`.
pub fn grouped(count: f64) -> String {
    let digits = format!("{:.0}", count.abs());
    let mut text = if count < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `write` → `publish`, whose lag is so long, with so much of its spool taken; one of them waited for room.
    fn load(write_waits: bool, lag: f64, spool: f64) -> Load {
        use crate::telemetry::{Snapshot, table};
        let at = |second: i64| {
            let mut snapshot = Snapshot::new("edge-kafka", 0, second * 1_000_000_000);
            for (stage, kind) in [("write", "storage_writer"), ("publish", "kafka_sink")] {
                snapshot.number(&table::UP, &[stage, "0", kind], 1.0);
                snapshot.number(&table::CAPACITY, &[stage, "0"], 64.0);
            }
            let waited = if write_waits { second as f64 } else { 0.0 };
            snapshot.number(&table::TIME, &["write", "0", "backpressured"], waited);
            snapshot.number(&table::LAG, &["publish", "0"], lag);
            snapshot.number(&table::SPOOL, &["publish", "market"], spool);
            snapshot
        };
        Load::between(&at(1), &at(2))
    }

    #[test]
    fn one_sentence_says_who_holds_up_whom_or_is_behind() {
        for (waits, lag, spool, said) in [
            (true, 90.0, 1.0, "publish is the bottleneck; write waits for it"),
            (false, 90.0, 0.8, "the spool of publish fills up; nobody waits yet"),
            (true, 0.1, 0.1, "write waits for room downstream"),
            (false, 90.0, 0.1, "nobody waits; publish is 90.0 s behind"),
            (false, 0.1, 0.1, "nothing waits: every stage takes what comes"),
        ] {
            assert_eq!(verdict(&load(waits, lag, spool)), said);
        }
        let figures = Figures::new(&load(false, 90.0, 0.8));
        assert_eq!((figures.text("s.publish.room"), figures.text("s.publish.taken")), ("spool", "80 %"));
        assert_eq!((figures.text("s.write.room"), figures.text("s.write.taken")), ("mailbox", "0 / 64"));
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        for (count, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (-1_234_567.0, "-1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
