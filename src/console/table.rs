//! The live table as text: one section per spec, all of it cut to the terminal's width and height. Pure.

use std::cmp::Ordering;

use super::board::{Board, MOST_SERIES, Tally};
use super::human;
use super::section::{Grid, Section};
use crate::catalog::Catalog;
use crate::model::{LedgerSnapshot, SeriesKey};
use crate::spec::{Spec, Specs};

/// A section needs its title, its column names, a bar, and a line between it and the next.
const LEAST_LINES: usize = 4;

/// The first line: what this is, and where to talk to it.
pub fn header(addresses: &[(String, String)]) -> String {
    let mut text = concat!("barline ", env!("CARGO_PKG_VERSION")).to_owned();
    for (name, address) in addresses {
        text += &format!(" · {name} {address}");
    }
    text
}

/// The last line: the ledger's totals, with the ticks per second where known, and the bars seen.
pub fn footer(totals: &LedgerSnapshot, per_second: Option<u64>, tally: &Tally) -> String {
    let count = human::count;
    let sum = |counts: &[(_, u64)]| counts.iter().map(|(_, ticks)| ticks).sum::<u64>();
    let rate = per_second.map_or(String::new(), |rate| format!(" ({}/s)", count(rate)));
    let (rejected, dropped) = (sum(&totals.rejected), sum(&totals.dropped));
    let at_least = if tally.missed_batches > 0 { "at least " } else { "" };
    format!(
        "ticks in {}{rate} · in bars {} · open {} · rejected {} · dropped {} · bars {at_least}{}",
        count(totals.received()),
        count(totals.in_bars),
        totals.open,
        count(rejected),
        count(dropped),
        count(tally.bars),
    )
}

/// A section for every spec of which there are bars, with no more of them than a terminal of `height` has lines.
pub fn sections(board: &mut Board, specs: &Specs, catalog: &Catalog, height: usize) -> Vec<Section> {
    let mut sections = Vec::new();
    for spec in specs.iter() {
        let newest = board.newest(spec.id);
        let mut bars: Vec<_> = newest.map(|kept| (catalog.key(spec.id, kept.head.series), kept)).collect();
        bars.sort_by(|(a, _), (b, _)| by_declared_dimensions(spec, a, b));
        let is_full = bars.len() >= MOST_SERIES;
        let series = if is_full { catalog.len(spec.id).max(bars.len()) } else { bars.len() };
        bars.truncate(height);
        if !bars.is_empty() {
            sections.push(Section::new(spec, &bars, series - bars.len()));
        }
    }
    sections
}

fn by_declared_dimensions(spec: &Spec, a: &SeriesKey, b: &SeriesKey) -> Ordering {
    let declared = spec.dimensions.iter().map(|name| a.get(name).cmp(&b.get(name)));
    declared.fold(Ordering::Equal, Ordering::then).then_with(|| a.dimensions().cmp(b.dimensions()))
}

/// Everything, one line each, at most `height - 1` of them so that the cursor fits below.
pub fn screen(header: &str, sections: Vec<Section>, footer: &str, width: usize, height: usize) -> String {
    let mut lines = vec![human::shortened(header, width), String::new()];
    if sections.is_empty() {
        lines.push("waiting for the first bar".to_owned());
    }
    let room = height.saturating_sub(5);
    let fitting = (room / LEAST_LINES).max(1);
    let hidden = sections.len().saturating_sub(fitting);
    let grids: Vec<_> = sections.into_iter().take(fitting).map(|section| section.grid(width)).collect();
    // Titles, column names and the lines between sections are not for bars.
    let spent: usize = usize::from(hidden > 0) + grids.iter().map(|grid| grid.head.len() + 2).sum::<usize>();
    let wants: Vec<_> = grids.iter().map(Grid::wants).collect();
    for (i, (grid, rows)) in grids.into_iter().zip(shares(&wants, (room + 1).saturating_sub(spent))).enumerate() {
        lines.extend((i > 0).then(String::new));
        grid.write(rows, width, &mut lines);
    }
    lines.extend((hidden > 0).then(|| format!("… and {hidden} more specs")));
    lines.truncate(height.saturating_sub(3).max(1));
    lines.extend([String::new(), human::shortened(footer, width)]);
    lines.join("\n")
}

/// Divides `room` lines fairly: whoever wants less than an equal share leaves the rest to the others.
fn shares(wants: &[usize], room: usize) -> Vec<usize> {
    let mut modest_first: Vec<_> = (0..wants.len()).collect();
    modest_first.sort_by_key(|at| wants[*at]);
    let (mut left, mut shares) = (room, vec![0; wants.len()]);
    for (served, at) in modest_first.into_iter().enumerate() {
        shares[at] = wants[at].min(left / (wants.len() - served));
        left -= shares[at];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fixtures::{bars, catalog, specs};
    use crate::model::{Reason, SpecId};

    fn screen_of(series: usize, width: usize, height: usize) -> Vec<String> {
        let specs = specs();
        let mut board = Board::new(specs.len());
        board.take(&bars(series, SpecId(0)));
        let sections = sections(&mut board, &specs, &catalog(&specs), height);
        screen("barline", sections, "end", width, height).lines().map(str::to_owned).collect()
    }

    #[test]
    fn bars_stand_in_aligned_columns_and_what_they_share_in_the_title() {
        let expected = [
            "barline",
            "",
            "host_metrics · 1s · host=vm",
            "time      resource  device  usage_max  used_last  ticks  rev  note",
            "00:00:01  cpu       cpu0       12.5 %                10    0  partial",
            "00:00:02  memory    ram                    2 GiB     10    0",
            "",
            "end",
        ];
        assert_eq!(screen_of(2, 80, 24), expected);
    }

    #[test]
    fn in_a_narrow_window_names_are_broken_and_then_metrics_left_out() {
        let broken = screen_of(2, 62, 24);
        assert_eq!(
            &broken[3..5],
            [
                "                             usage   used",
                "time      resource  device     max   last  ticks  rev  note",
            ]
        );
        let narrow = screen_of(2, 56, 24);
        assert_eq!(narrow[2], "host_metrics · 1s · host=vm · more metrics in a wider w…");
        assert!(narrow.iter().all(|line| line.chars().count() <= 56), "{narrow:#?}");
    }

    #[test]
    fn what_does_not_fit_the_height_is_told_as_a_number() {
        let lines = screen_of(500, 80, 12);
        assert_eq!(lines.len(), 11);
        assert_eq!(lines[8], "… and 496 more series");
        assert_eq!(lines[7].split_whitespace().nth(2), Some("dev004"));
    }

    #[test]
    fn no_window_is_too_small() {
        for (width, height) in [(1, 1), (2, 3), (10, 5), (200, 6), (0, 0)] {
            let lines = screen_of(300, width, height);
            assert!(lines.len() <= height.max(4), "{height}: {lines:#?}");
        }
    }

    #[test]
    fn lines_are_divided_fairly() {
        assert_eq!(shares(&[2, 100, 100], 22), [2, 10, 10]);
        assert_eq!(shares(&[5, 5], 100), [5, 5]);
        assert_eq!(shares(&[9, 9, 9], 2), [0, 1, 1]);
        assert!(shares(&[], 5).is_empty());
    }

    #[test]
    fn header_and_footer_say_where_to_talk_to_and_what_was_counted() {
        let addresses = [("gRPC", "127.0.0.1:9876"), ("HTTP", "http://127.0.0.1:9877")];
        let addresses = addresses.map(|(name, address)| (name.to_owned(), address.to_owned()));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(header(&addresses), format!("barline {version} · gRPC 127.0.0.1:9876 · HTTP http://127.0.0.1:9877"));
        let totals = LedgerSnapshot {
            accepted: 12_000,
            in_bars: 11_900,
            open: 100,
            rejected: vec![(Reason::Expired, 1), (Reason::Ahead, 2)],
            ..LedgerSnapshot::default()
        };
        assert_eq!(
            footer(&totals, Some(1_500), &Tally { bars: 1_200, ..Tally::default() }),
            "ticks in 12,003 (1,500/s) · in bars 11,900 · open 100 · rejected 3 · dropped 0 · bars 1,200"
        );
    }
}
