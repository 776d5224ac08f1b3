//! A plot as SVG: lines or bars over named places, on a linear or logarithmic scale.

use std::fmt::Write as _;

use super::page::escape;

/// What is plotted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What the figures are, with their unit.
    pub(super) unit: String,
    /// Names of the places, from left to right.
    pub(super) places: Vec<String>,
    pub(super) series: Vec<Series>,
    pub(super) bars: bool,
    pub(super) logarithmic: bool,
}

/// Figures that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// One for each place, where it is known.
    pub(super) values: Vec<Option<f64>>,
}

impl Chart {
    /// Puts a figure into its place, both made where they are not there yet.
    pub(super) fn put(&mut self, series: &str, place: &str, value: f64) {
        let at = self.places.iter().position(|other| other == place).unwrap_or_else(|| {
            self.places.push(place.to_owned());
            self.places.len() - 1
        });
        let index = self.series.iter().position(|other| other.name == series).unwrap_or_else(|| {
            self.series.push(Series { name: series.to_owned(), values: Vec::new() });
            self.series.len() - 1
        });
        let values = &mut self.series[index].values;
        if values.len() <= at {
            values.resize(at + 1, None);
        }
        values[at] = Some(value).filter(|value| value.is_finite() && (!self.logarithmic || *value > 0.0));
    }

    /// Whether there is anything to see.
    pub(super) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.series.iter().flat_map(|series| series.values.iter().copied().flatten())
    }

    /// The plot, with its legend.
    pub(super) fn svg(&self) -> String {
        let scale = Scale::over(self.values(), self.logarithmic);
        let legend_lines = self.series.len().div_ceil(LEGEND_COLUMNS);
        let height = BOTTOM + LABELS + 18.0 * legend_lines as f64;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\
             <text x=\"{LEFT}\" y=\"14\" class=\"unit\">{1}</text>\n",
            escape(&self.title),
            escape(&self.unit)
        );
        for tick in scale.ticks() {
            let y = scale.y(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"tick\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                figure(tick)
            );
        }
        let width = (RIGHT - LEFT) / self.places.len().max(1) as f64;
        for (at, place) in self.places.iter().enumerate() {
            let x = LEFT + width * (at as f64 + 0.5);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{0:.1}\" class=\"place\" transform=\"rotate(-30 {x:.1} {0:.1})\">{1}</text>",
                BOTTOM + 14.0,
                escape(place)
            );
        }
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            if self.bars {
                self.bars_of(series, index, width, &scale, colour, &mut svg);
            } else {
                line_of(series, width, &scale, colour, &mut svg);
            }
            let x = LEFT + (index % LEGEND_COLUMNS) as f64 * (RIGHT - LEFT) / LEGEND_COLUMNS as f64;
            let y = BOTTOM + LABELS + 18.0 * (index / LEGEND_COLUMNS) as f64;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"legend\">{}</text>",
                y - 9.0,
                x + 15.0,
                y,
                escape(&series.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn bars_of(&self, series: &Series, index: usize, width: f64, scale: &Scale, colour: &str, svg: &mut String) {
        let bar = width * 0.8 / self.series.len() as f64;
        for (at, value) in series.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = (LEFT + width * (at as f64 + 0.1) + bar * index as f64, scale.y(*value));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{:.1}\" fill=\"{colour}\">\
                 <title>{}: {}</title></rect>",
                (BOTTOM - y).max(0.5),
                escape(&series.name),
                figure(*value)
            );
        }
    }
}

fn line_of(series: &Series, width: f64, scale: &Scale, colour: &str, svg: &mut String) {
    let points: Vec<(f64, f64, f64)> = series
        .values
        .iter()
        .enumerate()
        .filter_map(|(at, value)| value.map(|value| (LEFT + width * (at as f64 + 0.5), scale.y(value), value)))
        .collect();
    let path: String = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1} ")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.trim_end()
    );
    for (x, y, value) in points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {}</title></circle>",
            escape(&series.name),
            figure(value)
        );
    }
}

/// From figures to heights.
struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, logarithmic: bool) -> Self {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return Self { least: 0.0, most: 1.0, logarithmic: false };
        }
        if logarithmic {
            let (least, most) = (least.log10().floor(), most.log10().ceil());
            return Self { least, most: most.max(least + 1.0), logarithmic };
        }
        let most = most.max(f64::MIN_POSITIVE);
        let step = step(most);
        Self { least: 0.0, most: (most / step).ceil() * step, logarithmic }
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        BOTTOM - (value - self.least) / (self.most - self.least) * (BOTTOM - TOP)
    }

    /// The figures that have a line.
    fn ticks(&self) -> Vec<f64> {
        let step = if self.logarithmic { 1.0 } else { step(self.most) };
        let count = ((self.most - self.least) / step).round();
        let at = |index: u32| self.least + f64::from(index) * step;
        (0..=20)
            .take_while(|index| f64::from(*index) <= count)
            .map(at)
            .map(|tick| if self.logarithmic { 10_f64.powf(tick) } else { tick })
            .collect()
    }
}

/// A round number, some five of which reach `most`.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| most / step <= 5.0)
        .unwrap_or(power * 10.0)
}

/// A figure with three digits that matter.
pub(super) fn figure(value: f64) -> String {
    let (value, unit) = match value.abs() {
        magnitude if magnitude >= 1e9 => (value / 1e9, "G"),
        magnitude if magnitude >= 1e6 => (value / 1e6, "M"),
        magnitude if magnitude >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        magnitude if magnitude >= 100.0 || magnitude == 0.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 745.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 300.0;
/// Below the axis, for the names of the places.
const LABELS: f64 = 85.0;
const LEGEND_COLUMNS: usize = 3;
/// The palette of Okabe and Ito (2008), which people who do not see all colours can tell apart.
const COLOURS: [&str; 8] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#999999", "#000000"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_put_where_they_belong() {
        let mut chart = Chart { logarithmic: true, ..Chart::default() };
        chart.put("a", "p50", 10.0);
        chart.put("a", "p99", 1000.0);
        chart.put("b", "p99", 100.0);
        chart.put("b", "p99.9", 0.0);
        assert_eq!(chart.places, ["p50", "p99", "p99.9"]);
        assert_eq!(chart.series[1].values, [None, Some(100.0), None], "a logarithm has no zero");
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        // The least figure is at the bottom, the most at the top.
        assert!(svg.contains("cy=\"300.0\"") && svg.contains("cy=\"28.0\""), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::over([3.0, 17.0].into_iter(), false).ticks(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(Scale::over([3.0, 170.0].into_iter(), true).ticks(), [1.0, 10.0, 100.0, 1000.0]);
        for (value, text) in [(0.0, "0"), (0.25, "0.25"), (1234.0, "1234"), (12_340.0, "12.3k"), (5e9, "5G")] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn names_of_others_cannot_leave_their_place() {
        let mut chart = Chart { title: "<script>".to_owned(), bars: true, ..Chart::default() };
        chart.put("\"><script>", "</text><script>", 1.0);
        assert!(!chart.svg().contains("<script>"));
    }
}
