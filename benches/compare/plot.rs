//! The picture in docs/explanation/benchmarks.md.

use plotters::prelude::*;

use super::{Rounds, middle, sorted};

/// Draws a bar for each contestant: the median round, with a line from the least to the greatest.
pub fn draw(path: &str, title: &str, rounds: &Rounds) {
    let height = 70 + 46 * rounds.len() as u32;
    let area = SVGBackend::new(path, (900, height)).into_drawing_area();
    area.fill(&WHITE).expect("a picture");
    let most = rounds.iter().flat_map(|(_, seen)| seen.iter().map(|seen| seen.per_second)).fold(0.0, f64::max);
    let (left, right) = (230.0, 820.0);
    let x = |rate: f64| (left + (right - left) * rate / most) as i32;
    let text = ("sans-serif", 16).into_font();
    area.draw(&Text::new(title.to_owned(), (20, 18), ("sans-serif", 20))).expect("a title");
    for (row, (name, seen)) in rounds.iter().enumerate() {
        let top = 60 + 46 * row as i32;
        let rates = sorted(seen.iter().map(|seen| seen.per_second));
        let color = if name.starts_with("records") { RGBColor(38, 102, 168) } else { RGBColor(150, 150, 150) };
        let bar = Rectangle::new([(x(0.0), top), (x(middle(&rates)), top + 28)], color.filled());
        area.draw(&bar).expect("a bar");
        let line =
            PathElement::new([(x(rates[0]), top + 14), (x(rates[rates.len() - 1]), top + 14)], BLACK.stroke_width(2));
        area.draw(&line).expect("a line");
        area.draw(&Text::new(name.clone(), (20, top + 6), text.clone())).expect("a name");
        let figure = format!("{:.0}", middle(&rates));
        area.draw(&Text::new(figure, (x(rates[rates.len() - 1]) + 8, top + 6), text.clone())).expect("a figure");
    }
    area.present().expect("a file");
}
