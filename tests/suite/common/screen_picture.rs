//! A picture of a terminal's screen as SVG: text that can be selected, curves and borders as shapes, which no font can distort.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// Size of a character in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;

/// Space around the screen.
const MARGIN: f64 = 12.0;

const BACKGROUND: &str = "#ffffff";
const FOREGROUND: &str = "#24292f";

pub fn svg(screen: &Screen, title: &str) -> String {
    let (rows, columns) = screen.size();
    let (width, height) =
        (f64::from(columns.get()) * WIDTH + 2.0 * MARGIN, f64::from(rows.get()) * HEIGHT + 2.0 * MARGIN);
    let mut texts = String::new();
    let mut boxes = String::new();
    let mut shapes: BTreeMap<&str, String> = BTreeMap::new();
    for row in 0..rows.get() {
        let mut column = 0;
        while column < columns.get() {
            let Some(cell) = screen.cell(row, column) else { break };
            let (x, y) = (MARGIN + f64::from(column) * WIDTH, MARGIN + f64::from(row) * HEIGHT);
            let character = cell.contents().chars().next().unwrap_or(' ');
            if shape(character, x, y, shapes.entry(colour(cell)).or_default()) {
                column += 1;
                continue;
            }
            // Cells of one style.
            let mut text = String::new();
            while let Some(next) = screen.cell(row, column).filter(|next| same_style(cell, next)) {
                let character = next.contents().chars().next().unwrap_or(' ');
                if is_shape(character) {
                    break;
                }
                text.push(character);
                column += 1;
            }
            write_text(&mut texts, &mut boxes, cell, &text, x, y);
        }
    }
    let shapes: String = shapes
        .iter()
        .filter(|(_, path)| !path.is_empty())
        .map(|(colour, path)| format!("<path fill=\"{colour}\" d=\"{path}\"/>\n"))
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         role=\"img\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\" stroke=\"#d0d7de\"/>\n{boxes}{shapes}\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         {texts}</g>\n</svg>\n"
    )
}

fn write_text(texts: &mut String, boxes: &mut String, cell: &Cell, text: &str, x: f64, y: f64) {
    let width = text.chars().count() as f64 * WIDTH;
    let mut fill = colour(cell);
    if cell.inverse() {
        let _ = writeln!(
            boxes,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>"
        );
        fill = BACKGROUND;
    }
    let weight = if cell.bold() { " font-weight=\"bold\"" } else { "" };
    // Words far apart are texts of their own: spaces have no width that can be relied on.
    let mut column = 0;
    for part in text.split("  ") {
        let (start, words) = (column + part.len() - part.trim_start().len(), part.trim());
        column += part.chars().count() + 2;
        if words.is_empty() {
            continue;
        }
        let length = words.chars().count() as f64 * WIDTH;
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            texts,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{fill}\"{weight} textLength=\"{length:.1}\">{words}</text>",
            x + start as f64 * WIDTH,
            y + HEIGHT * 0.74
        );
    }
}

fn same_style(a: &Cell, b: &Cell) -> bool {
    (a.fgcolor(), a.bold(), a.inverse(), a.dim()) == (b.fgcolor(), b.bold(), b.inverse(), b.dim())
}

/// The terminal's colours, dark enough for a light background.
fn colour(cell: &Cell) -> &'static str {
    match cell.fgcolor() {
        Color::Idx(1 | 9) => "#cf222e",
        Color::Idx(2 | 10) => "#1a7f37",
        Color::Idx(3 | 11) => "#bf6a02",
        Color::Idx(4 | 12) => "#0550ae",
        Color::Idx(5 | 13) => "#8250df",
        Color::Idx(6 | 14) => "#0a7ea4",
        Color::Idx(8) => "#8c959f",
        _ if cell.dim() => "#57606a",
        _ => FOREGROUND,
    }
}

/// Left, right, up and down: the halves of a cell that a border goes through.
fn border(character: char) -> Option<[bool; 4]> {
    Some(match character {
        '─' => [true, true, false, false],
        '│' => [false, false, true, true],
        '┌' => [false, true, false, true],
        '┐' => [true, false, false, true],
        '└' => [false, true, true, false],
        '┘' => [true, false, true, false],
        '├' => [false, true, true, true],
        '┤' => [true, false, true, true],
        '┬' => [true, true, false, true],
        '┴' => [true, true, true, false],
        '┼' => [true; 4],
        _ => return None,
    })
}

fn is_shape(character: char) -> bool {
    border(character).is_some() || ('\u{2801}'..='\u{28ff}').contains(&character)
}

/// Adds a border or the dots of a Braille pattern to a path; `false` if the character is neither.
fn shape(character: char, x: f64, y: f64, path: &mut String) -> bool {
    let mut rectangle = |x: f64, y: f64, width: f64, height: f64| {
        let _ = write!(path, "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
    };
    if let Some([left, right, up, down]) = border(character) {
        let (middle_x, middle_y) = (x + WIDTH / 2.0, y + HEIGHT / 2.0);
        for (there, start) in [(left, x), (right, middle_x)] {
            if there {
                rectangle(start, middle_y, WIDTH / 2.0, 1.0);
            }
        }
        for (there, start) in [(up, y), (down, middle_y)] {
            if there {
                rectangle(middle_x, start, 1.0, HEIGHT / 2.0);
            }
        }
        return true;
    }
    if !is_shape(character) {
        return false;
    }
    let dots = character as u32 - 0x2800;
    // The bits of the two columns of a pattern, from above.
    for (column, bits) in [[0, 1, 2, 6], [3, 4, 5, 7]].into_iter().enumerate() {
        for (row, bit) in bits.into_iter().enumerate() {
            if dots >> bit & 1 == 1 {
                let (step_x, step_y) = (WIDTH / 2.0, HEIGHT / 4.0);
                rectangle(x + column as f64 * step_x + 1.0, y + row as f64 * step_y + 1.1, 2.2, 2.2);
            }
        }
    }
    true
}
