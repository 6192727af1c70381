//! A canvas for one plot: `plotters` draws the SVG, the page's style sheet sets the colours.
//!
//! Every colour is one of [`PALETTE`]; one style rule per colour (see [`colour_rules`]) maps it to a CSS
//! variable, so that plots follow the light or dark colour scheme. The literal values are those of the light
//! scheme, so that a plot extracted from the page looks right.

use anyhow::{Context as _, Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Tick;

/// Width of every canvas in canvas units: several per pixel, since plotters rounds to integers.
pub const WIDTH: u32 = 1680;
const LEFT: i32 = 196;
const RIGHT: i32 = 28;
const TOP: i32 = 34;
const BOTTOM: i32 = 84;
/// Text size in canvas units: 10 px if the canvas is 358 px wide, as on a phone with 390 px.
const TEXT: f64 = 48.0;
/// plotters divides font sizes by this factor.
const PLOTTERS_TEXT: f64 = 1.24;

/// A colour named by its role.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ink {
    Strategy,
    Benchmark,
    Long,
    Short,
    Flat,
    Label,
    Grid,
    Base,
}

/// Colour, name of its CSS variable, value in the light scheme.
pub const PALETTE: [(Ink, &str, RGBColor); 8] = [
    (Ink::Strategy, "strategy", RGBColor(0x1d, 0x56, 0xc4)),
    (Ink::Benchmark, "benchmark", RGBColor(0x73, 0x6f, 0x68)),
    (Ink::Long, "long", RGBColor(0x1b, 0x84, 0x78)),
    (Ink::Short, "short", RGBColor(0xc8, 0x5a, 0x17)),
    (Ink::Flat, "flat", RGBColor(0xeb, 0xea, 0xe6)),
    (Ink::Label, "label", RGBColor(0x5c, 0x5a, 0x55)),
    (Ink::Grid, "grid", RGBColor(0xe4, 0xe2, 0xdd)),
    (Ink::Base, "base", RGBColor(0xa9, 0xa6, 0x9f)),
];

impl Ink {
    fn colour(self) -> RGBColor {
        PALETTE.iter().find(|entry| entry.0 == self).map_or(BLACK, |entry| entry.2)
    }
}

/// The style rules that map each colour of the plots to its CSS variable.
pub fn colour_rules() -> String {
    let rule = |(_, name, RGBColor(r, g, b)): &(Ink, &str, RGBColor)| {
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        format!("svg [stroke=\"{hex}\"]{{stroke:var(--{name})}}svg [fill=\"{hex}\"]{{fill:var(--{name})}}\n")
    };
    PALETTE.iter().map(rule).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a> = DrawingArea<SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Ranges and ticks of a plot.
pub struct Axes {
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub x_ticks: Vec<Tick>,
    pub y_ticks: Vec<Tick>,
    /// A stronger horizontal line, such as the starting equity.
    pub baseline: Option<f64>,
}

/// A plot being drawn.
pub struct Canvas<'a> {
    root: Area<'a>,
    plane: Plane<'a>,
    x: (f64, f64),
    y: (f64, f64),
}

/// Draws with `paint` on a canvas `height` units high and returns the SVG element, labelled for screen readers.
pub fn draw(
    height: u32,
    axes: &Axes,
    label: &str,
    paint: impl FnOnce(&Canvas<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let canvas = Canvas::new(root, height, axes)?;
        canvas.mesh(height, axes)?;
        paint(&canvas)?;
        canvas.root.present().map_err(fault)?;
    }
    let (_, body) = svg.split_once('>').context("plotters wrote no svg element")?;
    let label = maud::html! { (label) }.into_string();
    Ok(format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">{body}"))
}

impl<'a> Canvas<'a> {
    fn new(root: Area<'a>, height: u32, axes: &Axes) -> Result<Self> {
        let span = |(low, high): (f64, f64)| if high > low { low..high } else { low - 0.5..low + 0.5 };
        let bottom = i32::try_from(height)? - BOTTOM;
        let right = i32::try_from(WIDTH)? - RIGHT;
        let plane = Cartesian2d::<RangedCoordf64, RangedCoordf64>::new(
            span(axes.x),
            span(axes.y),
            (LEFT..right, bottom..TOP),
        );
        let (x, y) = (span(axes.x), span(axes.y));
        Ok(Self { plane: root.apply_coord_spec(plane), root, x: (x.start, x.end), y: (y.start, y.end) })
    }

    fn mesh(&self, height: u32, axes: &Axes) -> Result<()> {
        let bottom = i32::try_from(height)? - BOTTOM;
        let right = i32::try_from(WIDTH)? - RIGHT;
        for (value, label) in &axes.y_ticks {
            self.path(vec![(self.x.0, *value), (self.x.1, *value)], Ink::Grid)?;
            let (_, y) = self.plane.map_coordinate(&(self.x.0, *value));
            self.text(label, (LEFT - 20, y), HPos::Right, VPos::Center)?;
        }
        if let Some(value) = axes.baseline {
            self.path(vec![(self.x.0, value), (self.x.1, value)], Ink::Base)?;
        }
        for (value, label) in &axes.x_ticks {
            let (x, _) = self.plane.map_coordinate(&(*value, axes.y.0));
            let tick = vec![(x, bottom), (x, bottom + 12)];
            self.root.draw(&PathElement::new(tick, Ink::Base.colour())).map_err(fault)?;
            // Margin of half a label to the right edge and to the lowest label of the other axis.
            let half = (label.chars().count() as f64 * TEXT * 0.28) as i32;
            let (x, anchor) = if x + half > right + RIGHT {
                (right + RIGHT - 4, HPos::Right)
            } else if x - half < LEFT - 12 {
                (x.max(LEFT) - 8, HPos::Left)
            } else {
                (x, HPos::Center)
            };
            self.text(label, (x, bottom + 22), anchor, VPos::Top)?;
        }
        Ok(())
    }

    /// A line through points in data coordinates, with gaps at non-finite ones.
    pub fn line(&self, points: &[(f64, f64)], ink: Ink) -> Result<()> {
        for part in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
            match part {
                [] => {}
                [point] => self.plane.draw(&Circle::new(*point, 7, ink.colour().filled())).map_err(fault)?,
                part => self.path(part.to_vec(), ink)?,
            }
        }
        Ok(())
    }

    /// The area between finite points in data coordinates and the level `base`, lightly filled.
    pub fn area(&self, points: &[(f64, f64)], base: f64, ink: Ink) -> Result<()> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
        let outline = [(first.0, base)].into_iter().chain(points.iter().copied()).chain([(last.0, base)]);
        self.plane.draw(&Polygon::new(outline.collect::<Vec<_>>(), ink.colour().mix(0.16))).map_err(fault)
    }

    /// A filled rectangle from `x.0` to `x.1` in data coordinates and `y.0` to `y.1` in canvas units.
    pub fn bar(&self, x: (f64, f64), y: (i32, i32), ink: Ink, opacity: f64) -> Result<()> {
        let place = |x: f64| self.plane.map_coordinate(&(x, 0.0)).0;
        let corners = [(place(x.0), y.0), (place(x.1).max(place(x.0) + 2), y.1)];
        self.root.draw(&Rectangle::new(corners, ink.colour().mix(opacity).filled())).map_err(fault)
    }

    /// A filled rectangle from `x.0` to `x.1` and from 0 to `top`, in data coordinates.
    pub fn column(&self, x: (f64, f64), top: f64, ink: Ink, opacity: f64) -> Result<()> {
        let place = |value| self.plane.map_coordinate(&(x.0, value)).1;
        self.bar(x, (place(top), place(0.0)), ink, opacity)
    }

    /// A vertical line through the whole plot.
    pub fn vertical(&self, x: f64, ink: Ink) -> Result<()> {
        self.path(vec![(x, self.y.0), (x, self.y.1)], ink)
    }

    /// Text above a row: `left` at the left end of the plot, `right` at its right end, with the lower edge at `y`.
    pub fn heading(&self, left: &str, right: &str, y: i32) -> Result<()> {
        self.text(left, (LEFT, y), HPos::Left, VPos::Bottom)?;
        self.text(right, (i32::try_from(WIDTH)? - RIGHT, y), HPos::Right, VPos::Bottom)
    }

    fn path(&self, points: Vec<(f64, f64)>, ink: Ink) -> Result<()> {
        self.plane.draw(&PathElement::new(points, ink.colour().stroke_width(5))).map_err(fault)
    }

    fn text(&self, text: &str, place: (i32, i32), h: HPos, v: VPos) -> Result<()> {
        let style = ("sans-serif", TEXT * PLOTTERS_TEXT).into_font().color(&Ink::Label.colour());
        self.root.draw(&Text::new(text.to_owned(), place, style.pos(Pos::new(h, v)))).map_err(fault)
    }
}

fn fault(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a plot: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_is_more_and_right_is_later() {
        let axes =
            Axes { x: (0.0, 10.0), y: (0.0, 1.0), x_ticks: Vec::new(), y_ticks: Vec::new(), baseline: None };
        let svg =
            draw(600, &axes, "a \"label\"", |canvas| canvas.line(&[(0.0, 0.0), (10.0, 1.0)], Ink::Strategy))
                .unwrap();
        assert!(
            svg.starts_with("<svg viewBox=\"0 0 1680 600\" role=\"img\" aria-label=\"a &quot;label&quot;\">")
        );
        let points = svg.split_once("points=\"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        let places: Vec<i32> = points.split([' ', ',']).filter_map(|number| number.parse().ok()).collect();
        let [x0, y0, x1, y1] = places[..] else { panic!("{points}") };
        assert!((x0 - LEFT).abs() <= 1 && (x1 - (1680 - RIGHT)).abs() <= 1, "{points}");
        assert!((y0 - (600 - BOTTOM)).abs() <= 1 && (y1 - TOP).abs() <= 1, "{points}");
    }

    #[test]
    fn a_range_of_nothing_is_drawn_all_the_same() {
        let axes = Axes {
            x: (0.0, 0.0),
            y: (5.0, 5.0),
            x_ticks: Vec::new(),
            y_ticks: Vec::new(),
            baseline: Some(5.0),
        };
        let svg = draw(600, &axes, "", |canvas| canvas.line(&[(0.0, 5.0)], Ink::Strategy)).unwrap();
        assert!(svg.contains("<circle") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}
