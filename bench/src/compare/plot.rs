//! The report's plots, as SVG. Two kinds are all that it needs, so they are written here rather than with a library.

use std::fmt::Write as _;

use super::Spread;
use crate::report::count;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 240.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 54.0;
/// Colours that can be told apart, also by those who see fewer of them (Okabe and Ito).
const COLOURS: [&str; 8] = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#999999"];
/// Between two rows of stacked bars.
const ROW: f64 = 36.0;

/// A line: a name, and at each of the plot's places a figure or none.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<Option<Spread>>,
}

/// Lines over named places, on a logarithmic scale; each point with the rounds' spread.
pub(super) fn lines(title: &str, x_name: &str, y_name: &str, places: &[String], lines: &[Line]) -> String {
    let figures = || lines.iter().flat_map(|line| &line.points).flatten().filter(|spread| spread.low > 0.0);
    let lowest = figures().map(|spread| spread.low).fold(f64::INFINITY, f64::min);
    let highest = figures().map(|spread| spread.high).fold(0.0, f64::max);
    let mut svg = Svg::new(HEIGHT, title);
    if highest <= 0.0 {
        return svg.end();
    }
    let (bottom, top) = (lowest.log10().floor(), highest.log10().ceil().max(lowest.log10().floor() + 1.0));
    let y = |figure: f64| {
        // A figure of 0 has no place on this scale; it stands at the bottom.
        let place = (figure.max(f64::MIN_POSITIVE).log10().clamp(bottom, top) - bottom) / (top - bottom);
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - place)
    };
    let step = (WIDTH - LEFT - RIGHT) / count(places.len().max(2) as u64 - 1);
    let x = |place: usize| LEFT + step * count(place as u64);
    let mut decade = bottom;
    while decade <= top {
        let at = y(10f64.powf(decade));
        svg.line((LEFT, at), (WIDTH - RIGHT, at), "#dddddd", 1.0);
        svg.text((LEFT - 8.0, at + 4.0), "end", &short(10f64.powf(decade)));
        decade += 1.0;
    }
    for (index, place) in places.iter().enumerate() {
        svg.line((x(index), HEIGHT - BOTTOM), (x(index), HEIGHT - BOTTOM + 5.0), "#000000", 1.0);
        svg.text((x(index), HEIGHT - BOTTOM + 20.0), "middle", place);
    }
    svg.text((f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 12.0), "middle", x_name);
    svg.text((LEFT - 8.0, TOP - 12.0), "start", y_name);
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut last = None;
        for (place, spread) in line.points.iter().enumerate().filter_map(|(place, point)| Some((place, (*point)?))) {
            let at = (x(place), y(spread.median));
            svg.line((at.0, y(spread.low)), (at.0, y(spread.high)), colour, 1.0);
            svg.dot(at, colour);
            if let Some(last) = last.replace(at) {
                svg.line(last, at, colour, 2.0);
            }
        }
        let key = TOP + 18.0 * count(index as u64);
        svg.line((WIDTH - RIGHT + 16.0, key), (WIDTH - RIGHT + 36.0, key), colour, 3.0);
        svg.text((WIDTH - RIGHT + 42.0, key + 4.0), "start", &line.name);
    }
    svg.end()
}

/// A stacked bar: a name, and the parts in the plot's order.
pub(super) struct Stack {
    pub(super) name: String,
    pub(super) parts: Vec<f64>,
}

/// Stacked bars, one below the other.
pub(super) fn stacks(title: &str, unit: &str, parts: &[&str], stacks: &[Stack]) -> String {
    let height = TOP + 30.0 + ROW * count(stacks.len() as u64) + 20.0;
    let mut svg = Svg::new(height, title);
    let most = stacks.iter().map(|stack| stack.parts.iter().sum::<f64>()).fold(f64::EPSILON, f64::max);
    let left = 230.0;
    let scale = (WIDTH - left - 90.0) / most;
    for (index, part) in parts.iter().enumerate() {
        let at = left + 150.0 * count(index as u64);
        svg.block((at, TOP - 8.0), (14.0, 14.0), COLOURS[index + 1]);
        svg.text((at + 20.0, TOP + 4.0), "start", part);
    }
    for (row, stack) in stacks.iter().enumerate() {
        let y = TOP + 30.0 + ROW * count(row as u64);
        svg.text((left - 10.0, y + 16.0), "end", &stack.name);
        let mut x = left;
        for (index, part) in stack.parts.iter().enumerate() {
            svg.block((x, y), (part * scale, 22.0), COLOURS[index + 1]);
            x += part * scale;
        }
        svg.text((x + 6.0, y + 16.0), "start", &format!("{:.1} {unit}", stack.parts.iter().sum::<f64>()));
    }
    svg.end()
}

/// A round figure, short.
fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 1e6 => format!("{} M", figure / 1e6),
        figure if figure >= 1e3 => format!("{} k", figure / 1e3),
        figure => format!("{figure}"),
    }
}

struct Svg(String);

impl Svg {
    fn new(height: f64, title: &str) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ));
        svg.write(format_args!(
            "<text x=\"{}\" y=\"20\" font-size=\"15\" text-anchor=\"middle\">{}</text>\n",
            WIDTH / 2.0,
            escaped(title)
        ));
        svg
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.write(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n",
            from.0, from.1, to.0, to.1
        ));
    }

    fn dot(&mut self, at: (f64, f64), colour: &str) {
        self.write(format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>\n", at.0, at.1));
    }

    fn block(&mut self, at: (f64, f64), size: (f64, f64), colour: &str) {
        self.write(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n",
            at.0, at.1, size.0, size.1
        ));
    }

    fn text(&mut self, at: (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        self.write(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>\n", at.0, at.1));
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        self.0.write_fmt(what).expect("writing to a string can't fail");
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Spread {
        Spread { median, low: median / 2.0, high: median * 2.0 }
    }

    #[test]
    fn higher_figures_stand_higher() {
        let places = ["1", "2"].map(str::to_owned);
        let line = Line { name: "a <b>".to_owned(), points: vec![Some(spread(10.0)), Some(spread(1000.0))] };
        let svg = lines("title", "callers", "jobs/s", &places, &[line]);
        let heights: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.strip_prefix("<circle")?.split("cy=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(heights.len() == 2 && heights[0] > heights[1], "{heights:?}");
        assert!(svg.contains("a &lt;b&gt;") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_decades_are_evenly_apart() {
        let places = ["1", "2"].map(str::to_owned);
        let line = Line { name: "a".to_owned(), points: vec![Some(spread(50.0)), Some(spread(4_000.0))] };
        let svg = lines("title", "callers", "jobs/s", &places, &[line]);
        let grid: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("#dddddd"))
            .filter_map(|line| line.split("y1=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(grid.len() == 4 && ((grid[0] - grid[1]) - (grid[2] - grid[3])).abs() < 0.2, "10 to 10 000: {grid:?}");
    }

    #[test]
    fn what_was_not_measured_leaves_a_gap() {
        let places = ["1", "2", "3"].map(str::to_owned);
        let line = Line { name: "a".to_owned(), points: vec![Some(spread(10.0)), None, Some(spread(20.0))] };
        assert_eq!(lines("t", "x", "y", &places, &[line]).matches("<circle").count(), 2);
        let nothing = Line { name: "a".to_owned(), points: vec![None, None, None] };
        assert_eq!(lines("t", "x", "y", &places, &[nothing]).matches("<circle").count(), 0);
    }

    #[test]
    fn a_stack_is_as_long_as_its_sum() {
        let stack = |name: &str, parts: &[f64]| Stack { name: name.to_owned(), parts: parts.to_vec() };
        let svg = stacks("cpu", "µs", &["one", "two"], &[stack("a", &[1.0, 2.0]), stack("b", &[1.0, 5.0])]);
        assert!(svg.contains("3.0 µs") && svg.contains("6.0 µs"));
    }
}
