//! Curves as a picture: coverage against cost, and a reliability diagram, side by side in one SVG.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    drawing::IntoDrawingArea,
    element::{Circle, PathElement},
    series::LineSeries,
    style::{BLACK, Color, IntoFont as _, RGBColor, WHITE},
};

use super::curves::Curved;

/// Size in pixels.
const SIZE: (u32, u32) = (1080, 460);
/// Costs beyond this are not shown.
const MOST: f64 = 2.0;
/// One colour a subject, told apart also by those who tell few colours apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("the plot can't be drawn: {0}")]
pub struct PlotError(String);

/// Draws an SVG.
///
/// # Errors
/// When the plot has no room.
pub fn svg(title: &str, curved: &Curved) -> Result<String, PlotError> {
    let mut text = String::new();
    draw(&mut text, title, curved).map_err(|error| PlotError(error.to_string()))?;
    Ok(text)
}

fn draw(text: &mut String, title: &str, curved: &Curved) -> Result<(), Box<dyn std::error::Error>> {
    let root = plotters::backend::SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 * 11 / 20);
    let font = ("sans-serif", 15).into_font();

    let highest = curved.curves.iter().flat_map(|curve| curve.points.iter().filter(|point| point.0 <= MOST));
    let highest = highest.map(|point| point.1).fold(10.0, f64::max);
    let highest = (highest / 10.0).ceil() * 10.0;
    let mut chart = ChartBuilder::on(&left)
        .caption(format!("{title}: misses avoided against look-ups ahead"), font.clone())
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..MOST, 0.0..highest)?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc("look-ups ahead per miss without any")
        .y_desc("misses avoided, net, %")
        .draw()?;
    for (curve, colour) in curved.curves.iter().zip(COLOURS) {
        let width = if curve.subject == "prewarm" { 3 } else { 2 };
        let line = std::iter::once((0.0, 0.0)).chain(within(&curve.points));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(width)))?
            .label(curve.subject)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(width)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;

    let caption = format!("said and come within 10 s (error {:.3})", curved.calibration_error);
    let mut chart = ChartBuilder::on(&right)
        .caption(caption, font)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart.configure_mesh().max_light_lines(1).x_desc("probability said").y_desc("share that came").draw()?;
    chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4)))?;
    let bins: Vec<_> = curved.reliability.iter().filter(|bin| bin[2] > 0.0).collect();
    let points = bins.iter().map(|bin| (bin[0], bin[1]));
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    // The area of a dot tells how much was said there.
    let most = bins.iter().map(|bin| bin[2]).fold(1.0, f64::max);
    let dot = |bin: &&[f64; 3]| {
        Circle::new((bin[0], bin[1]), 2.0 + 10.0 * (bin[2] / most).sqrt(), COLOURS[0].mix(0.5).filled())
    };
    chart.draw_series(bins.iter().map(dot))?;
    root.present()?;
    Ok(())
}

/// The points up to the highest cost that is shown, the last on its edge.
fn within(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut shown: Vec<_> = points.iter().copied().filter(|point| point.0 <= MOST).collect();
    let (last, next) = (shown.last().copied().unwrap_or_default(), points.iter().find(|point| point.0 > MOST));
    if let Some(next) = next {
        let part = (MOST - last.0) / (next.0 - last.0);
        shown.push((MOST, last.1 + part * (next.1 - last.1)));
    }
    shown
}
