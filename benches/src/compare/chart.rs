//! The picture: for each workload a bar, how many times as fast we were, with its spread and
//! the goals. SVG, by hand: it is a few rectangles.

use super::outcome::{Outcome, Reached};

const ROW: f64 = 26.0;
const LEFT: f64 = 330.0;
const PLOT: f64 = 480.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 44.0;

/// Draws it. The axis is logarithmic, from 0.5 to the largest ratio or goal.
pub fn draw(outcomes: &[Outcome]) -> String {
    let largest = outcomes.iter().map(|outcome| outcome.ratio().max.max(outcome.workload.goal.stretch));
    let largest = largest.fold(2.0, f64::max) * 1.1;
    let scale = Scale { largest };
    let height = TOP + ROW * outcomes.len() as f64 + 30.0;
    let width = LEFT + PLOT + RIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">Packets in a second of a core: Ferroflow / OVS-DPDK at its \
         best</text>\n"
    );
    for tick in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        if tick <= largest {
            svg += &grid_line(scale.x(tick), height, tick);
        }
    }
    for (n, outcome) in outcomes.iter().enumerate() {
        svg += &bar(&scale, TOP + ROW * n as f64, outcome);
    }
    svg + "</svg>\n"
}

/// Ratios to places.
struct Scale {
    largest: f64,
}

impl Scale {
    const SMALLEST: f64 = 0.5;

    fn x(&self, ratio: f64) -> f64 {
        let part = (ratio.max(Self::SMALLEST) / Self::SMALLEST).ln() / (self.largest / Self::SMALLEST).ln();
        LEFT + PLOT * part.min(1.0)
    }
}

fn grid_line(x: f64, height: f64, tick: f64) -> String {
    let colour = if tick == 1.0 { "#444" } else { "#ddd" };
    let (top, bottom) = (TOP - 8.0, height - 24.0);
    format!(
        "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"{colour}\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{tick}x</text>\n",
        height - 8.0
    )
}

fn bar(scale: &Scale, y: f64, outcome: &Outcome) -> String {
    let (ratio, goal) = (outcome.ratio(), outcome.workload.goal);
    let colour = match outcome.reached() {
        Reached::Nothing => "#d98032",
        Reached::Floor => "#5b9bd5",
        Reached::Stretch => "#3c9d5d",
    };
    let (from, to) = (scale.x(1.0), scale.x(ratio.median));
    let (left, bar_width) = (from.min(to), (to - from).abs());
    let (least, most) = (scale.x(ratio.min), scale.x(ratio.max));
    let (floor, stretch) = (scale.x(goal.floor), scale.x(goal.stretch));
    let (middle, text) = (y + 9.0, y + 13.0);
    let label = format!("{}  {}", outcome.workload.id, outcome.workload.title);
    format!(
        "<text x=\"{:.1}\" y=\"{text}\" text-anchor=\"end\">{label}</text>\
         <rect x=\"{left:.1}\" y=\"{y}\" width=\"{bar_width:.1}\" height=\"18\" fill=\"{colour}\"/>\
         <path d=\"M{least:.1} {middle}H{most:.1}\" stroke=\"black\"/>\
         <path d=\"M{floor:.1} {:.1}v22M{stretch:.1} {:.1}v22\" stroke=\"#a00\" stroke-dasharray=\"3 2\"/>\
         <text x=\"{:.1}\" y=\"{text}\">{:.2}x</text>\n",
        LEFT - 8.0,
        y - 2.0,
        y - 2.0,
        most.max(to) + 6.0,
        ratio.median
    )
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::tests::outcome, *};

    #[test]
    fn bars_are_as_long_as_the_ratio_says() {
        let scale = Scale { largest: 8.0 };
        assert_eq!(scale.x(0.1), LEFT);
        assert_eq!(scale.x(8.0), LEFT + PLOT);
        assert!((scale.x(2.0) - LEFT - PLOT / 2.0).abs() < 1e-9);
    }

    #[test]
    fn there_is_a_bar_for_each_workload() {
        let svg = draw(&[outcome(&[3]), outcome(&[1])]);
        assert_eq!(svg.matches("P2  100k flows").count(), 2);
        assert!(svg.contains(">3.00x<") && svg.contains(">1.00x<"));
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }
}
