//! The tests that docs/promises.md names exist.

use std::path::Path;

/// The sources below a folder.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            into.push_str(&std::fs::read_to_string(&entry).unwrap());
        }
    }
}

#[test]
fn every_promise_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    for folder in ["src", "examples/trainer", "tests/suite"] {
        sources(&root.join(folder), &mut text);
    }
    let promises = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise"));
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        for name in tests.split(", ") {
            let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            let name = name.unwrap_or_else(|| panic!("no test in {row}"));
            let head = format!("#[test]\n    fn {name}()");
            let flat = format!("#[test]\nfn {name}()");
            assert!(text.contains(&head) || text.contains(&flat), "there is no test `{name}`");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}
