//! How cost grows with size: one SVG for every table and unit in which the size varies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::{Measurement, Report, Unit, distinct};
use crate::size::Bytes;

/// A curve needs this many points to say anything.
const POINTS: usize = 3;

/// One curve: who did what, and what it cost at each size.
struct Curve {
    label: String,
    points: Vec<(f64, f64)>,
}

/// A plot: the curves of one table that count the same.
pub(super) struct Plot {
    /// The table it belongs to.
    pub table: String,
    unit: Unit,
    curves: Vec<Curve>,
    file: String,
}

impl Plot {
    /// Where it is drawn.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(&self.file)
    }
}

/// The plots that the numbers of `report` make.
pub(super) fn of_report(report: &Report) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (number, table) in report.tables().into_iter().enumerate() {
        for unit in distinct(report.of_table(table).map(|cell| cell.unit)) {
            let cells: Vec<_> = report.of_table(table).filter(|cell| cell.unit == unit && cell.value > 0.0).collect();
            let curves = curves(&cells);
            if !curves.is_empty() {
                let unit_name = unit.name().replace('/', "-per-").replace('%', "percent");
                let file = format!("{}-{}-{unit_name}.svg", report.part.name(), number + 1);
                plots.push(Plot { table: table.to_owned(), unit, curves, file });
            }
        }
    }
    plots
}

fn curves(cells: &[&Measurement]) -> Vec<Curve> {
    let whats = distinct(cells.iter().filter(|cell| cell.size.is_some()).map(|cell| &cell.what));
    distinct(cells.iter().map(|cell| (&cell.what, &cell.who)))
        .into_iter()
        .filter_map(|(what, who)| {
            let own = cells.iter().filter(|cell| (&cell.what, &cell.who) == (what, who));
            let mut points: Vec<_> = own.filter_map(|cell| Some((cell.size? as f64, cell.value))).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            let label = if whats.len() == 1 { who.clone() } else { format!("{who}: {what}") };
            (points.len() >= POINTS).then_some(Curve { label, points })
        })
        .collect()
}

/// Draws every plot of `report` into `directory`.
pub(super) fn draw_all(report: &Report, directory: &Path) -> Result<()> {
    for plot in of_report(report) {
        let path = plot.path(directory);
        let mut svg = String::new();
        draw(&plot, &mut svg).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
        fs::write(path, svg)?;
    }
    Ok(())
}

fn draw(plot: &Plot, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = || plot.curves.iter().flat_map(|curve| &curve.points);
    let bounds = |values: Vec<f64>, base| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        (least / 1.5..most * 1.5).log_scale().base(base)
    };
    let root = SVGBackend::with_string(svg, (860, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&plot.table, ("sans-serif", 18))
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
    for (index, curve) in plot.curves.iter().enumerate() {
        let color = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color).point_size(3))?
            .label(&curve.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
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
        draw_all(&report, directory.path()).expect("drawn");
        let svg = fs::read_to_string(directory.path().join("guest-1-instructions.svg")).expect("it is there");
        assert!(svg.contains("Linux") && svg.contains("128M") && !svg.contains("unplug"), "{svg}");
    }

    #[test]
    fn two_points_make_no_plot() {
        let mut report = Report::new(Part::Host, true, Vec::new());
        for shift in [30, 36] {
            let cell = Measurement::new("frames", "add", "altmap", 1.0, Unit::Instructions);
            report.add(Measurement { size: Some(1 << shift), ..cell });
        }
        assert!(of_report(&report).is_empty());
    }
}
