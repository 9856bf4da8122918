//! The last bars of a series as SVG: candles where the spec has first, max, min and last of one field, else a line.

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use super::windows::Drawn;
use crate::spec::{Aggregation, Spec};

const SIZE: (u32, u32) = (1100, 300);
/// Readable on light and on dark paper.
const UP: RGBColor = RGBColor(0x8b, 0x92, 0x9c);
const DOWN: RGBColor = RGBColor(0xd9, 0x62, 0x1c);

type Wrong = Box<dyn std::error::Error>;

/// The drawing; nothing where there is nothing to draw.
pub fn chart(spec: &Spec, drawn: &[Drawn]) -> Markup {
    let mut svg = String::new();
    let candles = candles(spec);
    let done = match candles {
        Some(metrics) => draw_candles(&mut svg, drawn, metrics),
        None => draw_line(&mut svg, drawn),
    };
    let what = match (candles, spec.metrics.first()) {
        (Some(_), _) => "candles of the last bars".to_owned(),
        (None, Some(metric)) => format!("{} of the last bars", metric.name),
        (None, None) => String::new(),
    };
    html! {
        // A drawing that cannot be made is left out: the table beside it has the same numbers.
        @if done.is_ok() && !svg.is_empty() { figure class="chart" role="img" aria-label=(what) { (PreEscaped(svg)) } }
    }
}

/// The metrics that are open, high, low and close of one field.
fn candles(spec: &Spec) -> Option<[usize; 4]> {
    let field = |metric: &crate::spec::Metric| Some(spec.accumulators.get(metric.accumulator?)?.field);
    let of = |aggregation: Aggregation, wanted: usize| {
        spec.metrics.iter().position(|metric| metric.aggregation == aggregation && field(metric) == Some(wanted))
    };
    let mut opens = spec.metrics.iter().filter(|metric| metric.aggregation == Aggregation::First).filter_map(field);
    opens.find_map(|field| {
        let [open, high, low, close] =
            [Aggregation::First, Aggregation::Max, Aggregation::Min, Aggregation::Last].map(|a| of(a, field));
        Some([open?, high?, low?, close?])
    })
}

fn draw_candles(svg: &mut String, drawn: &[Drawn], metrics: [usize; 4]) -> Result<(), Wrong> {
    let value = |bar: &Drawn, metric: usize| bar.metrics.get(metric).copied().flatten();
    let candle = |bar: &Drawn| {
        let [open, high, low, close] = metrics.map(|metric| value(bar, metric));
        Some((bar.start as f64 / 1e9, open?, high?, low?, close?))
    };
    let candles: Vec<_> = drawn.iter().filter_map(candle).collect();
    let points: Vec<_> = candles.iter().flat_map(|(at, _, high, low, _)| [(*at, *high), (*at, *low)]).collect();
    let Some((times, values)) = ranges(&points) else { return Ok(()) };
    let width = (900 / candles.len().max(1)).clamp(2, 12) as u32;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = axes(&root, times, values)?;
    chart.draw_series(candles.into_iter().map(|(at, open, high, low, close)| {
        CandleStick::new(at, open, high, low, close, UP.filled(), DOWN.filled(), width)
    }))?;
    root.present()?;
    Ok(())
}

fn draw_line(svg: &mut String, drawn: &[Drawn]) -> Result<(), Wrong> {
    let point = |bar: &Drawn| Some((bar.start as f64 / 1e9, bar.metrics.first().copied().flatten()?));
    let points: Vec<_> = drawn.iter().filter_map(point).collect();
    let Some((times, values)) = ranges(&points) else { return Ok(()) };
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    axes(&root, times, values)?.draw_series(LineSeries::new(points, DOWN.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

type Span = std::ops::Range<f64>;

/// The times and the values that are drawn, with a little room around them.
fn ranges(points: &[(f64, f64)]) -> Option<(Span, Span)> {
    let finite = || points.iter().filter(|(_, value)| value.is_finite());
    // What does not differ is drawn in the middle; a time is seconds since 1970, of which a share would be hours.
    let range = |of: fn(&(f64, f64)) -> f64, least: fn(f64) -> f64| {
        let (low, high) = finite().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let room = ((high - low) * 0.04).max(least(high));
        low - room..high + room
    };
    finite().next()?;
    Some((range(|point| point.0, |_| 0.5), range(|point| point.1, |high| (high.abs() * 1e-6).max(1e-9))))
}

type Area<'a, 'b> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Axes<'a, 'b> = ChartContext<
    'b,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn axes<'a, 'b>(root: &'b Area<'a, 'b>, times: Span, values: Span) -> Result<Axes<'a, 'b>, Wrong> {
    let mut chart = ChartBuilder::on(root)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(72)
        .build_cartesian_2d(times, values)
        .map_err(|error| error.to_string())?;
    let grid = UP.mix(0.18);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(grid)
        .light_line_style(TRANSPARENT)
        .axis_style(UP.mix(0.4))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|seconds| clock(*seconds))
        .draw()
        .map_err(|error| error.to_string())?;
    Ok(chart)
}

/// The time of day, in UTC.
fn clock(seconds: f64) -> String {
    let day = (seconds.max(0.0) as u64) % 86_400;
    format!("{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_bars_takes_the_whole_width() {
        let points: Vec<_> = (0..60).map(|second| (1.8e9 + f64::from(second), 100.0)).collect();
        let (times, values) = ranges(&points).unwrap();
        assert!(times.end - times.start < 70.0, "{times:?}");
        assert!(values.start < 100.0 && values.end > 100.0 && values.end - values.start < 1.0, "{values:?}");
        assert_eq!(ranges(&[(0.0, f64::NAN)]), None);
    }
}
