//! How cost grows with size: one SVG for every operation and unit in which the size varies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::{Measurement, Report, Unit, distinct};
use crate::size::Bytes;

/// A curve needs this many points to say anything.
const POINTS: usize = 3;

/// Colours that colour-blind readers can tell apart, too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// One curve: who did it, and what it cost at each size.
struct Curve<'a> {
    who: &'a str,
    points: Vec<(f64, f64)>,
}

/// A plot: what one operation costs everybody.
pub(super) struct Plot<'a> {
    /// The table that it belongs to.
    pub table: &'a str,
    /// The operation.
    pub what: &'a str,
    /// What the values count.
    pub unit: Unit,
    curves: Vec<Curve<'a>>,
    file: String,
}

impl Plot<'_> {
    /// Where it is drawn.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(&self.file)
    }

    /// What it shows.
    pub(super) fn title(&self) -> String {
        format!("{}: {}", self.table, self.what)
    }
}

/// The plots that the numbers of `reports` make together.
pub(super) fn of_reports(reports: &[Report]) -> Vec<Plot<'_>> {
    let cells = || reports.iter().flat_map(|report| &report.measurements);
    distinct(cells().map(row_of))
        .into_iter()
        .filter_map(|(table, what, unit)| {
            // Nothing is left of zero where the scale is of powers.
            let is_drawn = |cell: &&Measurement| row_of(cell) == (table, what, unit) && cell.value > 0.0;
            let curves = curves(&cells().filter(is_drawn).collect::<Vec<_>>());
            let file = format!("{}.svg", slug(&[table, what, unit.name()].join(" ")));
            (!curves.is_empty()).then_some(Plot { table, what, unit, curves, file })
        })
        .collect()
}

fn row_of(cell: &Measurement) -> (&str, &str, Unit) {
    (&cell.table, &cell.what, cell.unit)
}

fn curves<'a>(cells: &[&'a Measurement]) -> Vec<Curve<'a>> {
    distinct(cells.iter().map(|cell| cell.who.as_str()))
        .into_iter()
        .filter_map(|who| {
            let own = cells.iter().filter(|cell| cell.who == who);
            let mut points: Vec<_> = own.filter_map(|cell| Some((cell.size? as f64, cell.value))).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            // Two reports may tell the same.
            points.dedup_by_key(|point| point.0);
            (points.len() >= POINTS).then_some(Curve { who, points })
        })
        .collect()
}

/// A name for a file: words in lower case between dashes.
fn slug(text: &str) -> String {
    let words = text.replace('%', "percent").to_lowercase();
    let words = words.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Draws them into `directory`.
pub(super) fn draw(plots: &[Plot<'_>], directory: &Path) -> Result<()> {
    for plot in plots {
        let path = plot.path(directory);
        let mut svg = String::new();
        render(plot, &mut svg).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
        fs::write(path, svg)?;
    }
    Ok(())
}

fn render(plot: &Plot<'_>, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = || plot.curves.iter().flat_map(|curve| &curve.points);
    let bounds = |values: Vec<f64>, base| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        (least / 1.5..most * 1.5).log_scale().base(base)
    };
    let root = SVGBackend::with_string(svg, (860, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(plot.title(), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(84)
        .build_cartesian_2d(
            bounds(points().map(|point| point.0).collect(), 2.0),
            bounds(points().map(|point| point.1).collect(), 10.0),
        )?;
    chart
        .configure_mesh()
        .x_desc("memory")
        .y_desc(plot.unit.name())
        .x_label_formatter(&|bytes| Bytes(*bytes as u64).to_string())
        .y_label_formatter(&|value| super::table::number(*value))
        .draw()?;
    for (curve, colour) in plot.curves.iter().zip(COLOURS.into_iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style).point_size(3))?
            .label(curve.who)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    // Costs grow to the upper right.
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Part;

    #[test]
    fn what_was_measured_at_several_sizes_is_drawn() {
        let mut report = Report::new(Part::Guest, true, Vec::new());
        for who in ["altmap", "Linux"] {
            for shift in [27, 30, 40] {
                let cell = Measurement::new("plug", "DIMM", who, f64::from(shift), Unit::Instructions);
                report.add(Measurement { size: Some(1 << shift), ..cell });
            }
        }
        report.add(Measurement::new("plug", "unplug", "altmap", 1.0, Unit::Instructions));
        let directory = tempfile::tempdir().expect("a directory");
        draw(&of_reports(&[report]), directory.path()).expect("drawn");
        let svg = fs::read_to_string(directory.path().join("plug-dimm-instructions.svg")).expect("it is there");
        assert!(svg.contains("Linux") && svg.contains("128M") && svg.contains("plug: DIMM"), "{svg}");
        assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 1);
    }

    #[test]
    fn two_points_make_no_plot() {
        let mut report = Report::new(Part::Host, true, Vec::new());
        for shift in [30, 36] {
            let cell = Measurement::new("frames", "add", "altmap", 1.0, Unit::Instructions);
            report.add(Measurement { size: Some(1 << shift), ..cell });
        }
        assert!(of_reports(&[report]).is_empty());
    }
}
