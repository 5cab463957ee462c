//! The table of what must be reached, and whether it is.

use std::fmt;

use serde::Serialize;

use super::statistics::Spread;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// More is better: the bar is passed from the required figure upwards.
    AtLeast,
    /// Less is better: the bar is passed up to the required figure.
    AtMost,
}

/// One requirement and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// The table's row, from 1; a row with two requirements has two bars.
    pub row: u8,
    /// What is compared with what.
    pub name: String,
    /// The median of the rounds' figures; `None` where it could not be measured, which is a miss.
    pub measured: Option<f64>,
    /// The lowest and the highest of the rounds' figures.
    pub range: Option<[f64; 2]>,
    /// What it has to be.
    pub required: f64,
    /// Which way is good.
    pub sense: Sense,
    /// What the figures are in.
    pub unit: &'static str,
    /// Whether it is reached.
    pub pass: bool,
}

impl Bar {
    /// A ratio of two things.
    pub fn ratio(row: u8, name: impl Into<String>, measured: Option<Spread>, sense: Sense, required: f64) -> Self {
        Self::new(row, name, measured, sense, required, "×")
    }

    /// A figure in `unit`.
    pub fn new(
        row: u8,
        name: impl Into<String>,
        measured: Option<Spread>,
        sense: Sense,
        required: f64,
        unit: &'static str,
    ) -> Self {
        let pass = measured.is_some_and(|measured| match sense {
            Sense::AtLeast => measured.median >= required,
            Sense::AtMost => measured.median <= required,
        });
        let (range, measured) =
            (measured.map(|measured| [measured.low, measured.high]), measured.map(|measured| measured.median));
        Self { row, name: name.into(), measured, range, required, sense, unit, pass }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sense = match self.sense {
            Sense::AtLeast => "at least",
            Sense::AtMost => "at most",
        };
        let verdict = if self.pass { "met" } else { "MISSED" };
        match self.measured {
            Some(measured) => write!(f, "{:>2}  {verdict:<6}  {measured:>10.3}", self.row)?,
            None => write!(f, "{:>2}  {verdict:<6}  {:>10}", self.row, "–")?,
        }
        write!(f, "  {sense} {:<8.3} {:<12}  {}", self.required, self.unit, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(sense: Sense, measured: f64) -> bool {
        Bar::ratio(1, "a", Spread::of([measured]), sense, 2.5).pass
    }

    #[test]
    fn a_bar_is_passed_at_its_figure_and_missed_past_it() {
        assert!(pass(Sense::AtLeast, 2.5) && !pass(Sense::AtLeast, 2.499_999));
        assert!(pass(Sense::AtMost, 2.5) && !pass(Sense::AtMost, 2.500_001));
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        for sense in [Sense::AtLeast, Sense::AtMost] {
            assert!(!Bar::ratio(1, "a", None, sense, 2.5).pass);
            assert!(!Bar::ratio(1, "a", Spread::of([f64::NAN]), sense, 2.5).pass);
        }
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let bar = Bar::ratio(3, "1 × 1", Spread::of([0.9, 1.0, 0.8]), Sense::AtMost, 0.95);
        let json = serde_json::to_value(&bar).expect("it can be written");
        assert_eq!(json["name"], "1 × 1");
        assert_eq!((json["measured"].as_f64(), json["required"].as_f64()), (Some(0.9), Some(0.95)));
        assert_eq!((json["pass"].as_bool(), json["sense"].as_str()), (Some(true), Some("at_most")));
        assert!(
            serde_json::to_value(Bar::ratio(1, "a", None, Sense::AtMost, 1.0)).expect("JSON")["measured"].is_null()
        );
    }
}
