//! Draws a view.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart as Plot, Dataset, GraphType, Paragraph, Wrap};

use super::App;
use super::history::History;
use super::views::{Chart, VIEWS};
use crate::progress::{count, duration};

/// Smallest terminal, in columns and rows.
const SMALLEST: (u16, u16) = (30, 9);

/// Smallest chart.
const SMALLEST_CHART: (u16, u16) = (36, 7);

/// Magnitudes above this are left out: a scale could not hold them.
const LARGEST: f64 = 1e100;

pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!(
            "Terminal too small: {}x{}, at least {}x{} (q: {})",
            area.width, area.height, SMALLEST.0, SMALLEST.1, app.quits
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Length(1), Constraint::Min(1)];
    let rows = rows.into_iter().chain([Constraint::Length(1)]);
    let [head, pace, tabs, body, foot] = Layout::vertical(rows).areas(area);
    let state = Line::from(app.state.as_str()).right_aligned();
    let [left, right] =
        Layout::horizontal([Constraint::Min(1), Constraint::Length(state.width() as u16 + 1)]).areas(head);
    frame.render_widget(Line::from(Span::styled(end_of(&app.title, left.width), bold())), left);
    frame.render_widget(state, right);
    frame.render_widget(Line::from(progress(&app.history)), pace);
    frame.render_widget(views(app.view), tabs);
    let keys = charts(frame, body, app);
    let foot_line = match &app.message {
        Some(message) => Line::from(Span::styled(message.clone(), Style::new().fg(Color::Yellow))),
        None => Line::from(Span::styled(keys, Style::new().add_modifier(Modifier::DIM))),
    };
    frame.render_widget(foot_line, foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The end of a path that is too long for its place.
fn end_of(text: &str, width: u16) -> String {
    let (length, width) = (text.chars().count(), usize::from(width));
    if length <= width {
        return text.into();
    }
    let end: String = text.chars().skip(length - width.saturating_sub(1)).collect();
    format!("…{end}")
}

fn progress(history: &History) -> String {
    let Some(last) = history.last() else {
        return format!("no iteration of {} is complete yet", history.total);
    };
    let left = match history.time_left() {
        Some(left) if last.iteration < history.total => format!("{} left  ", duration(left)),
        _ => String::new(),
    };
    let (steps, rate) = (count(last.env_steps as f64), count(last.steps_per_second));
    format!("iteration {}/{}  {left}{rate} steps/s  {steps} steps", last.iteration, history.total)
}

fn views(shown: usize) -> Line<'static> {
    let spans = VIEWS.iter().enumerate().flat_map(|(number, view)| {
        let style = if number == shown { bold().add_modifier(Modifier::REVERSED) } else { Style::new() };
        [Span::styled(format!("{} {}", number + 1, view.name), style), Span::raw(" ")]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// Draws as many charts of the view as fit, and returns the line about the keys.
fn charts(frame: &mut Frame<'_>, area: Rect, app: &mut App) -> String {
    let all = VIEWS[app.view].charts;
    let most_columns = if all.len() > 4 { 3 } else { 2 };
    let columns = usize::from(area.width / SMALLEST_CHART.0).clamp(1, most_columns);
    let rows = all.len().div_ceil(columns);
    let fitting = usize::from(area.height / SMALLEST_CHART.1).clamp(1, rows);
    app.scroll = app.scroll.min(rows - fitting);
    let shown = all.iter().skip(app.scroll * columns).take(fitting * columns);
    let places = Layout::vertical(vec![Constraint::Fill(1); fitting]).split(area);
    let places = places
        .iter()
        .flat_map(|row| Layout::horizontal(vec![Constraint::Fill(1); columns]).split(*row).to_vec());
    for (shown, place) in shown.zip(places) {
        chart(frame, place, shown, &app.history);
    }
    let keys = format!("1-{} Tab: views  q: {}", VIEWS.len(), app.quits);
    if fitting == rows {
        return keys;
    }
    let (first, last) = (app.scroll * columns + 1, ((app.scroll + fitting) * columns).min(all.len()));
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    format!("Up Down: {range} of {}  {keys}", all.len())
}

fn chart(frame: &mut Frame<'_>, area: Rect, chart: &Chart, history: &History) {
    // Two dots a column, and the first and the last of what falls on one.
    let curves: Vec<_> = chart
        .curves
        .iter()
        .map(|curve| (curve, points(history, curve.value, usize::from(area.width) * 2)))
        .collect();
    // Not in the colour of the border.
    let mut title = vec![Span::styled(chart.title, bold().fg(Color::Reset))];
    for (curve, points) in &curves {
        let Some((_, last)) = points.last() else { continue };
        let name = if curve.name.is_empty() { String::new() } else { format!("{} ", curve.name) };
        let text = format!(" {name}{}", (chart.text)(*last));
        title.push(Span::styled(text, Style::new().fg(curve.colour)));
    }
    let block = Block::bordered().title(Line::from(title)).border_style(Style::new().fg(Color::DarkGray));
    let values = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value));
    let (lowest, highest) = values()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if lowest > highest {
        let text = Paragraph::new(chart.missing).wrap(Wrap { trim: true }).block(block);
        return frame.render_widget(text, area);
    }
    let (first, last) = match history.rows.as_slice() {
        [first, .., last] => (first.env_steps, last.env_steps),
        [only] => (0, only.env_steps),
        [] => (0, 1),
    };
    let datasets = curves.iter().map(|(curve, points)| {
        let kind = if points.len() > 1 { GraphType::Line } else { GraphType::Scatter };
        let style = Style::new().fg(curve.colour);
        Dataset::default().marker(Marker::Braille).graph_type(kind).style(style).data(points)
    });
    let x = Axis::default()
        .bounds([first as f64, (last as f64).max(first as f64 + 1.0)])
        .labels([count(first as f64), count(last as f64)]);
    // A single value stands in the middle.
    let labels = match lowest < highest {
        true => vec![(chart.text)(lowest), (chart.text)(highest)],
        false => vec![String::new(), (chart.text)(lowest), String::new()],
    };
    let y = Axis::default().bounds(bounds(lowest, highest)).labels(labels);
    frame.render_widget(Plot::new(datasets.collect()).block(block).x_axis(x).y_axis(y), area);
}

/// The range of the values, or one around the only one.
fn bounds(lowest: f64, highest: f64) -> [f64; 2] {
    if lowest < highest {
        return [lowest, highest];
    }
    let margin = (lowest.abs() * 0.1).max(1e-9);
    [lowest - margin, highest + margin]
}

/// Points of a curve over the environment steps, at most two for each of `buckets` ranges of rows: the lowest and the highest value
/// in it, in their order. The last value is always the last point.
fn points(
    history: &History,
    value: fn(&[crate::metrics::Row], usize) -> Option<f64>,
    buckets: usize,
) -> Vec<(f64, f64)> {
    let rows = &history.rows;
    let known: Vec<_> = (0..rows.len())
        .filter_map(|at| Some((rows[at].env_steps as f64, value(rows, at)?)))
        .filter(|(_, value)| value.is_finite() && value.abs() <= LARGEST)
        .collect();
    let size = known.len().div_ceil(buckets.max(1));
    if size <= 2 {
        return known;
    }
    let mut points = Vec::new();
    for bucket in known.chunks(size) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let extremes = [bucket.iter().min_by(by_value), bucket.iter().max_by(by_value)];
        let mut pair: Vec<_> = extremes.into_iter().flatten().copied().collect();
        pair.sort_by(|a, b| a.0.total_cmp(&b.0));
        pair.dedup();
        points.extend(pair);
    }
    let last = known.last().copied();
    if points.last().copied() != last {
        points.extend(last);
    }
    points
}
