//! The declarations of an environment's WGSL, found without compiling it: their kinds, names and lines.
//!
//! The functions of an environment call functions that are generated from its structures, so its text cannot be compiled before its
//! structures are known. The outline finds them, and what is missing or not allowed, by brackets and semicolons alone.

use std::ops::Range;

/// A module-scope declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declaration<'a> {
    /// `struct`, `fn`, `const`, `alias`, `var`, `override`, `import` and so on.
    pub(super) keyword: &'a str,
    /// The declared name; empty for directives and imports.
    pub(super) name: &'a str,
    /// Everything between the name and the body, or the end of the declaration.
    pub(super) header: &'a str,
    /// Whether attributes such as `@compute` precede it.
    pub(super) attributes: bool,
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    range: Range<usize>,
}

/// A text with its comments replaced by spaces, which keeps lines and columns.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    text: String,
    /// Line of the first bracket without a partner.
    pub(super) unbalanced: Option<usize>,
}

impl Outline {
    pub(super) fn new(source: &str) -> Self {
        let text = without_comments(source);
        let unbalanced = unbalanced(&text);
        Self { text, unbalanced }
    }

    /// The text without comments, in which runs of white space are one space. Two sources with the same words are the same rules.
    pub(super) fn words(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub(super) fn declarations(&self) -> Vec<Declaration<'_>> {
        let mut found = Vec::new();
        let mut depth = 0i32;
        let mut start = None;
        for (at, byte) in self.text.bytes().enumerate() {
            if start.is_none() && !byte.is_ascii_whitespace() && byte != b';' {
                start = Some(at);
            }
            depth += i32::from(b"{([".contains(&byte)) - i32::from(b"})]".contains(&byte));
            if depth == 0 && (byte == b'}' || byte == b';') {
                found.extend(start.take().map(|start| self.declaration(start..at + 1)));
            }
        }
        found.extend(start.map(|start| self.declaration(start..self.text.len())));
        found
    }

    /// The declaration of this kind and name.
    pub(super) fn find(&self, keyword: &str, name: &str) -> Option<Declaration<'_>> {
        self.declarations().into_iter().find(|it| it.keyword == keyword && it.name == name)
    }

    /// Structures, constants and aliases, everything else replaced by spaces.
    pub(super) fn types(&self) -> String {
        let mut bytes: Vec<u8> =
            self.text.bytes().map(|byte| if byte == b'\n' { b'\n' } else { b' ' }).collect();
        for declaration in self.declarations() {
            if matches!(declaration.keyword, "struct" | "const" | "alias") {
                bytes[declaration.range.clone()].copy_from_slice(&self.text.as_bytes()[declaration.range]);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn declaration(&self, range: Range<usize>) -> Declaration<'_> {
        let line = 1 + self.text[..range.start].matches('\n').count();
        let mut rest = &self.text[range.clone()];
        let attributes = rest.starts_with('@');
        while let Some(after) = rest.strip_prefix('@') {
            rest = after[word(after.trim_start()).len()..].trim_start();
            if rest.starts_with('(') {
                rest = rest.find(')').map_or("", |end| rest[end + 1..].trim_start());
            }
        }
        let keyword = word(rest);
        rest = rest[keyword.len()..].trim_start();
        // `var<private>`.
        if rest.starts_with('<') {
            rest = rest.find('>').map_or("", |end| rest[end + 1..].trim_start());
        }
        let named = matches!(keyword, "struct" | "fn" | "const" | "alias" | "var" | "override");
        let name = if named { word(rest) } else { "" };
        rest = &rest[name.len()..];
        let header = rest[..rest.find('{').unwrap_or(rest.len())].trim();
        Declaration { keyword, name, header, attributes, line, range }
    }
}

impl Declaration<'_> {
    /// Types of a function's parameters, and its result (empty for none), without spaces.
    pub(super) fn signature(&self) -> (Vec<String>, String) {
        let close = self.header.rfind(')').unwrap_or(self.header.len());
        let inside = self.header[..close].trim_start_matches('(');
        let types = inside.split(',').filter(|it| !it.trim().is_empty());
        let types = types.map(|it| compact(it.split_once(':').map_or(it, |(_, ty)| ty))).collect();
        let result = self.header[close..].split_once("->").map_or(String::new(), |(_, ty)| compact(ty));
        (types, result)
    }
}

fn compact(text: &str) -> String {
    text.split_whitespace().collect()
}

/// The identifier that `text` begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Replaces comments by spaces, byte by byte. Block comments nest.
fn without_comments(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let (mut at, mut depth, mut line) = (0, 0u32, false);
    while at < bytes.len() {
        let two = &bytes[at..bytes.len().min(at + 2)];
        line = line && bytes[at] != b'\n';
        if !line && depth == 0 && two == b"//" {
            line = true;
        }
        let mark = !line && (two == b"/*" || (two == b"*/" && depth > 0));
        if mark {
            depth = if two == b"/*" { depth + 1 } else { depth - 1 };
            text.extend_from_slice(b"  ");
            at += 2;
            continue;
        }
        let hidden = (line || depth > 0) && bytes[at] != b'\n';
        text.push(if hidden { b' ' } else { bytes[at] });
        at += 1;
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn unbalanced(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut line = 1;
    for c in text.chars() {
        match c {
            '\n' => line += 1,
            '{' | '(' | '[' => open.push((c, line)),
            '}' | ')' | ']' => {
                let partner = open.pop().map(|(c, _)| c);
                if partner != Some(['{', '(', '['][usize::from(c == ')') + 2 * usize::from(c == ']')]) {
                    return Some(line);
                }
            }
            _ => {}
        }
    }
    open.first().map(|(_, line)| *line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found_with_their_lines_and_signatures() {
        let source = "// fn no() {}\nconst N: u32 = 3u;\n/* a { /* nested */ ( */ struct State {\n    // ä\n    x: array<f32, N>,\n}\nalias F = f32;\n@must_use fn f(a: u32, b: vec2< f32 >) -> array<f32, 2> { if (a > 1u) { return; } }\nfn step() -> Outcome { }\n@group(0) @binding(1) var<storage, read> mine: array<u32>;";
        let outline = Outline::new(source);
        assert_eq!(outline.unbalanced, None);
        let found = outline.declarations();
        let names: Vec<_> = found.iter().map(|it| (it.keyword, it.name, it.line, it.attributes)).collect();
        assert_eq!(
            names,
            [
                ("const", "N", 2, false),
                ("struct", "State", 3, false),
                ("alias", "F", 7, false),
                ("fn", "f", 8, true),
                ("fn", "step", 9, false),
                ("var", "mine", 10, true)
            ]
        );
        let f = outline.find("fn", "f").unwrap();
        assert_eq!(f.signature(), (vec!["u32".into(), "vec2<f32>".into()], "array<f32,2>".into()));
        assert_eq!(outline.find("fn", "step").unwrap().signature(), (vec![], "Outcome".into()));
        let types = outline.types();
        assert!(types.contains("array<f32, N>") && !types.contains("fn") && !types.contains("mine"));
        assert_eq!(types.matches('\n').count(), source.matches('\n').count());
        assert_eq!(Outline::new("fn f() { //\n  g(;\n}").unbalanced, Some(3));
        assert_eq!(Outline::new("\nfn f() {").unbalanced, Some(2));
        assert_eq!(Outline::new("a /* b */  c\n").words(), Outline::new("a // d\nc").words());
    }
}
