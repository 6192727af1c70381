//! Keeps outputs from replacing inputs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Checks that the file `out` is none of the inputs and none of the files in their folders, whatever names lead to it.
pub fn keep(inputs: &[PathBuf], out: &Path) -> Result<()> {
    // Asking whether it is the same file opens it, which for a pipe would wait for a writer.
    if !out.is_file() {
        return Ok(());
    }
    for input in inputs {
        let folder = input.is_dir().then(|| std::fs::read_dir(input).ok()).flatten();
        let files = folder.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for file in files.chain([input.clone()]) {
            if file.is_file() && same_file::is_same_file(&file, out).unwrap_or(false) {
                bail!(
                    "--out {} is one of the inputs ({}): choose another name",
                    out.display(),
                    file.display()
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_known_by_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("data")).unwrap();
        std::fs::write(path("data/a.csv"), "candles").unwrap();
        std::fs::hard_link(path("data/a.csv"), path("hard.csv")).unwrap();
        let mut names = vec![path("data/a.csv"), path("data/../data/a.csv"), path("hard.csv")];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("data/a.csv", path("soft.csv")).unwrap();
            names.push(path("soft.csv"));
        }
        for out in &names {
            for input in [path("data"), path("data/a.csv"), path("hard.csv")] {
                let error = keep(std::slice::from_ref(&input), out).unwrap_err().to_string();
                assert!(error.contains("--out") && error.contains("is one of the inputs"), "{error}");
            }
        }
        for out in [path("data/b.csv"), path("a.csv")] {
            keep(&[path("data")], &out).unwrap();
        }
    }
}
