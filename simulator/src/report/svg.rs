//! Plots as inline SVG: no script, no external resource, colours from the page's CSS variables, so
//! that they follow light and dark. Every plot has a title and a description for screen readers.

use std::fmt::Write as _;

use super::page::escape;
use crate::numbers::{float, float_len};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// Ticks on an axis, about.
const TICKS: f64 = 5.0;

/// One line or layer of a plot.
#[derive(Debug)]
pub(super) struct Series {
    /// What it is called in the legend.
    pub(super) name: &'static str,
    /// Number of its colour in the page's palette, from 1.
    pub(super) colour: u8,
    /// Dash pattern, so that lines differ without colour; empty is solid.
    pub(super) dash: &'static str,
    /// Its values, one per x.
    pub(super) values: Vec<f64>,
}

/// What surrounds a plot.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: String,
    pub(super) x_name: &'a str,
    pub(super) y_name: &'a str,
}

/// Layers on top of each other over time, each value a step of `step` seconds.
pub(super) fn stacked(frame: &Frame<'_>, step: f64, layers: &[Series]) -> String {
    let steps = layers.first().map_or(0, |layer| layer.values.len());
    let total = |place: usize| layers.iter().map(|layer| layer.values[place]).sum::<f64>();
    let axis = Axis::linear(nice_top((0..steps).map(total).fold(0.0, f64::max)));
    let x_end = float_len(steps.max(1)) * step;
    let mut plot = Plot::begin(frame, layers);
    plot.y_axis(&axis, short);
    plot.x_axis_linear(x_end);
    let mut floor = vec![0.0; steps];
    for layer in layers.iter().filter(|layer| layer.values.iter().any(|value| *value > 0.0)) {
        let ceiling: Vec<f64> =
            floor.iter().zip(&layer.values).map(|(floor, value)| floor + value).collect();
        plot.area(layer.colour, &floor, &ceiling, &axis);
        floor = ceiling;
    }
    plot.end()
}

/// Lines over time on a logarithmic scale, a point in the middle of each step of `step` seconds.
/// Zeros (nothing measured) leave a gap.
pub(super) fn log_lines(frame: &Frame<'_>, step: f64, lines: &[Series]) -> String {
    let steps = lines.first().map_or(1, |line| line.values.len().max(1));
    let axis = Axis::logarithmic(lines.iter().flat_map(|line| line.values.iter().copied()));
    let mut plot = Plot::begin(frame, lines);
    plot.y_axis(&axis, micros);
    plot.x_axis_linear(float_len(steps) * step);
    for line in lines {
        let middle = |place| plot_x((float_len(place) + 0.5) / float_len(steps));
        let points = line.values.iter().enumerate().map(|(place, value)| (middle(place), *value));
        plot.line(line, points, &axis);
    }
    plot.end()
}

/// A distribution: share of requests on a scale that stretches the tail (as `HdrHistogram` does)
/// against latency.
pub(super) fn distribution(frame: &Frame<'_>, points: &[(f64, f64)], marks: &[f64]) -> String {
    let nines = |share: f64| (1.0 / (1.0 - share).max(1e-7)).log10();
    let x_end = marks.iter().copied().map(nines).fold(1.0, f64::max);
    let line = Series {
        name: "check latency",
        colour: 1,
        dash: "",
        values: points.iter().map(|point| point.1).collect(),
    };
    let axis = Axis::logarithmic(line.values.iter().copied());
    let lines = [line];
    let mut plot = Plot::begin(frame, &lines);
    plot.y_axis(&axis, micros);
    for mark in marks {
        plot.x_tick(nines(*mark) / x_end, &format!("{} %", trimmed(mark * 100.0)));
    }
    let shown = points.iter().filter(|(share, _)| nines(*share) <= x_end);
    let places = shown.map(|(share, value)| (plot_x(nines(*share) / x_end), *value));
    plot.line(&lines[0], places, &axis);
    plot.end()
}

struct Plot {
    out: String,
}

impl Plot {
    fn begin(frame: &Frame<'_>, series: &[Series]) -> Self {
        let mut out = String::new();
        let id = frame.id;
        let _ = write!(
            out,
            r#"<figure><figcaption id="{id}-t">{}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{id}-t {id}-d"><desc id="{id}-d">{}</desc>"#,
            escape(frame.title),
            escape(&frame.description)
        );
        let middle = TOP + (HEIGHT - TOP - BOTTOM) / 2.0;
        let _ = write!(
            out,
            r#"<text class="name" x="{}" y="{}" text-anchor="middle">{}</text><text class="name" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            HEIGHT - 5.0,
            escape(frame.x_name),
            escape(frame.y_name)
        );
        let mut plot = Self { out };
        if series.len() > 1 {
            plot.legend(series);
        }
        plot
    }

    fn legend(&mut self, series: &[Series]) {
        let mut x = LEFT + 8.0;
        for one in series {
            let _ = write!(
                self.out,
                r#"<line class="key c{}" x1="{x}" x2="{}" y1="10" y2="10" stroke-dasharray="{}"/><text class="legend" x="{}" y="14">{}</text>"#,
                one.colour,
                x + 22.0,
                one.dash,
                x + 28.0,
                escape(one.name)
            );
            x += 46.0 + 7.0 * float_len(one.name.len());
        }
    }

    fn y_axis(&mut self, axis: &Axis, label: impl Fn(f64) -> String) {
        for value in &axis.ticks {
            let y = axis.at(*value);
            let _ = write!(
                self.out,
                r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0,
                label(*value)
            );
        }
    }

    fn x_axis_linear(&mut self, end: f64) {
        let step = nice_step(end / (TICKS * 2.0)).max(1.0);
        let mut value = 0.0;
        while value <= end {
            self.x_tick(value / end, &trimmed(value));
            value += step;
        }
    }

    fn x_tick(&mut self, part: f64, label: &str) {
        let x = plot_x(part);
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(
            self.out,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}"/><text class="tick" x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"#,
            bottom + 5.0,
            bottom + 17.0
        );
    }

    /// The space between two stairs.
    fn area(&mut self, colour: u8, floor: &[f64], ceiling: &[f64], axis: &Axis) {
        let steps = float_len(ceiling.len());
        let left = |place: usize| plot_x(float_len(place) / steps);
        let mut path = String::new();
        for (place, value) in ceiling.iter().enumerate() {
            let command = if place == 0 { 'M' } else { 'L' };
            let y = axis.at(*value);
            let _ = write!(path, "{command}{:.1} {y:.1}H{:.1}", left(place), left(place + 1));
        }
        for (place, value) in floor.iter().enumerate().rev() {
            let y = axis.at(*value);
            let _ = write!(path, "L{:.1} {y:.1}H{:.1}", left(place + 1), left(place));
        }
        let _ = write!(self.out, r#"<path class="area c{colour}" d="{path}Z"/>"#);
    }

    fn line(&mut self, series: &Series, points: impl Iterator<Item = (f64, f64)>, axis: &Axis) {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, value) in points {
            if value <= 0.0 {
                pen_is_down = false;
                continue;
            }
            // A pen that is set down draws a dot, so that a lone point is seen.
            let (command, dot) = if pen_is_down { ('L', "") } else { ('M', "l0 0") };
            let _ = write!(path, "{command}{x:.1} {:.1}{dot}", axis.at(value));
            pen_is_down = true;
        }
        let _ = write!(
            self.out,
            r#"<path class="line c{}" stroke-dasharray="{}" d="{path}"/>"#,
            series.colour, series.dash
        );
    }

    fn end(mut self) -> String {
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(
            self.out,
            r#"<line class="axis" x1="{LEFT}" x2="{}" y1="{bottom}" y2="{bottom}"/></svg></figure>"#,
            WIDTH - RIGHT
        );
        self.out
    }
}

/// A vertical scale.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn linear(top: f64) -> Self {
        let step = nice_step(top / TICKS);
        let mut ticks = Vec::new();
        let mut value = 0.0;
        while value <= top * 1.000_001 {
            ticks.push(value);
            value += step;
        }
        Self { low: 0.0, high: top, is_log: false, ticks }
    }

    /// From the power of ten below the least to one above the largest positive value, with ticks at
    /// 1, 2 and 5 where there is room for them.
    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut largest) = (f64::MAX, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            least = least.min(value);
            largest = largest.max(value);
        }
        if largest <= 0.0 {
            (least, largest) = (1.0, 10.0);
        }
        let (low, high) = (log_step_down(least), log_step_up(largest.max(least * 1.01)));
        let decades = (high / low).log10();
        let parts: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(low.log10().floor());
        while power <= high * 1.000_001 {
            let inside = |value: &f64| *value >= low * 0.999 && *value <= high * 1.001;
            ticks.extend(parts.iter().map(|part| part * power).filter(inside));
            power *= 10.0;
        }
        Self { low, high, is_log: true, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - 8.0 - BOTTOM)
    }
}

fn plot_x(part: f64) -> f64 {
    LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

/// 1, 2 or 5 times a power of ten, at least `raw`.
fn nice_step(raw: f64) -> f64 {
    if raw <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|part| part * power)
        .find(|step| *step >= raw * 0.999_999)
        .unwrap_or(power * 10.0)
}

/// The whole number of nice steps that covers `top`.
fn nice_top(top: f64) -> f64 {
    let step = nice_step(top / TICKS);
    ((top / step).ceil() * step).max(step)
}

fn log_step_up(value: f64) -> f64 {
    nice_step(value)
}

fn log_step_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|part| part * power)
        .find(|step| *step <= value * 1.000_001)
        .unwrap_or(power)
}

fn short(value: f64) -> String {
    if value >= 1_000_000.0 {
        format!("{}M", trimmed(value / 1_000_000.0))
    } else if value >= 1_000.0 {
        format!("{}k", trimmed(value / 1_000.0))
    } else {
        trimmed(value)
    }
}

fn micros(value: f64) -> String {
    if value >= 1_000_000.0 {
        format!("{} s", trimmed(value / 1_000_000.0))
    } else if value >= 1_000.0 {
        format!("{} ms", trimmed(value / 1_000.0))
    } else {
        format!("{} µs", trimmed(value))
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Counts per second as floats, for plotting.
pub(super) fn rates(counts: impl Iterator<Item = u64>, step_seconds: u64) -> Vec<f64> {
    counts.map(|number| float(number) / float(step_seconds.max(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_tops_are_round_numbers() {
        for (raw, step) in [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (43.0, 50.0), (700.0, 1_000.0)] {
            assert!((nice_step(raw) - step).abs() < 1e-9, "{raw}");
        }
        assert!((nice_top(43_210.0) - 50_000.0).abs() < 1e-6);
        assert!(nice_top(0.0) > 0.0);
    }

    #[test]
    fn a_log_axis_spans_what_is_measured_and_survives_nothing() {
        let axis = Axis::logarithmic([87.0, 2_300.0].into_iter());
        assert!(axis.low <= 87.0 && axis.high >= 2_300.0);
        assert!(axis.ticks.len() >= 3);
        let empty = Axis::logarithmic(std::iter::empty());
        assert!(empty.at(5.0).is_finite());
    }

    #[test]
    fn a_gap_in_the_measurements_is_a_gap_in_the_line() {
        let frame =
            Frame { id: "x", title: "t", description: "d".into(), x_name: "s", y_name: "µs" };
        let series =
            Series { name: "p50", colour: 1, dash: "", values: vec![10.0, 0.0, 20.0, 30.0] };
        let plot = log_lines(&frame, 1.0, &[series]);
        let path = plot.split("class=\"line").nth(1).expect("one line");
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }
}
