use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;
use crate::metrics::Writer;

fn row(iteration: u32) -> Row {
    Row { iteration, env_steps: u64::from(iteration) * 64, ..Row::default() }
}

fn iterations(news: &News) -> Vec<u32> {
    news.rows.iter().map(|row| row.iteration).collect()
}

/// An unfinished run, as `train` makes it before its first iteration.
fn staged(path: &Path) -> Folder {
    let staging = path.join("unfinished");
    std::fs::create_dir_all(&staging).unwrap();
    std::fs::write(staging.join("config.toml"), "[mappo]\niterations = 9\n").unwrap();
    Folder::new(&staging)
}

/// A look after a failed opening would find a file that has been written meanwhile.
#[test]
fn missing_files_are_told_by_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.csv");
    let missing = checked::open(&path, MOST_BYTES).unwrap_err();
    std::fs::create_dir(&path).unwrap();
    assert!(is_missing(&missing));
    assert!(!is_missing(&checked::open(&path, MOST_BYTES).unwrap_err()));
    let settings = folder.path().join("config.toml");
    let missing = Settings::of_run(&settings, &[]).unwrap_err();
    std::fs::write(&settings, "[mappo]\niterations = 9\n").unwrap();
    assert!(is_missing(&missing));
    assert_eq!(total(&Folder::new(folder.path())).unwrap(), Some(9));
}

#[test]
fn a_growing_file_is_read_line_by_line_and_through_its_publication() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let staging = staged(run);
    let mut follower = Follower::new(run);
    let mut news = || follower.news().unwrap().unwrap();
    let empty = news();
    assert_eq!((empty.stage, empty.total, empty.rows.len()), (Stage::Interrupted, Some(9), 0));
    std::fs::write(run.join("phalanx.lock"), "process 1 (trainer train)").unwrap();
    let mut writer = Writer::resume(&staging.metrics(), 0).unwrap();
    assert_eq!(news().stage, Stage::Training);
    (1..=3).for_each(|iteration| writer.write(&row(iteration)).unwrap());
    assert_eq!(iterations(&news()), [1, 2, 3]);
    // Half a line, then the other half.
    let text = std::fs::read_to_string(staging.metrics()).unwrap();
    let line = text.lines().last().unwrap().replacen('3', "4", 1) + "\n";
    let mut file = OpenOptions::new().append(true).open(staging.metrics()).unwrap();
    file.write_all(&line.as_bytes()[..9]).unwrap();
    assert!(iterations(&news()).is_empty());
    file.write_all(&line.as_bytes()[9..]).unwrap();
    let news4 = news();
    assert_eq!((iterations(&news4), news4.anew), (vec![4], false));
    // Resumed from iteration 2: another file.
    let mut writer = Writer::resume(&staging.metrics(), 2).unwrap();
    writer.write(&row(3)).unwrap();
    let resumed = news();
    assert_eq!((iterations(&resumed), resumed.anew), (vec![1, 2, 3], true));
    // Published.
    writer.write(&row(4)).unwrap();
    for name in ["metrics.csv", "config.toml"] {
        std::fs::rename(staging.path().join(name), run.join(name)).unwrap();
    }
    std::fs::remove_dir(staging.path()).unwrap();
    let finished = news();
    assert_eq!((finished.stage, finished.anew, finished.total), (Stage::Finished, false, Some(9)));
    assert_eq!(iterations(&finished), [4]);
    assert!(run.join("phalanx.lock").exists());
}

#[test]
fn long_files_are_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let staging = staged(folder.path());
    let mut writer = csv::Writer::from_path(staging.metrics()).unwrap();
    (1..=40_000).for_each(|iteration| writer.serialize(row(iteration)).unwrap());
    writer.flush().unwrap();
    let mut follower = Follower::new(folder.path());
    let (mut all, mut parts) = (Vec::new(), 0);
    loop {
        let news = follower.news().unwrap().unwrap();
        assert!(news.rows.len() < 2 * BATCH && !news.anew);
        all.extend(iterations(&news));
        parts += 1;
        if !news.more {
            break;
        }
    }
    assert!(all.into_iter().eq(1..=40_000) && parts >= 3, "{parts}");
}

#[test]
fn damage_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let staging = staged(folder.path());
    let mut writer = Writer::resume(&staging.metrics(), 0).unwrap();
    writer.write(&row(1)).unwrap();
    let good = std::fs::read(staging.metrics()).unwrap();
    let error = |tail: &[u8]| {
        std::fs::write(staging.metrics(), [&good, tail].concat()).unwrap();
        format!("{:#}", Follower::new(folder.path()).news().unwrap_err())
    };
    let text = String::from_utf8(good.clone()).unwrap();
    let line = text.lines().last().unwrap();
    for (tail, wanted) in [
        (line.replacen("64", "many", 1) + "\n", "field 2: "),
        ("1,2,3\n".into(), "3 fields, and the header has 32: the file is damaged"),
        ("x".repeat(LONGEST_LINE + 1), "a line of more than 65536 bytes"),
    ] {
        let error = error(tail.as_bytes());
        assert!(error.contains("metrics.csv:3: ") && error.contains(wanted), "{error}");
    }
    let got = error(b"\xff\n");
    assert!(got.contains("metrics.csv:3: "), "{got}");
    std::fs::write(staging.metrics(), "my diary\n").unwrap();
    let got = format!("{:#}", Follower::new(folder.path()).news().unwrap_err());
    assert!(got.contains("metrics.csv:1: this is not the header of metrics"), "{got}");
    // Settings that no run has.
    std::fs::write(staging.metrics(), good).unwrap();
    std::fs::write(staging.settings(), "[mappo]\niterations = -1\n").unwrap();
    let got = format!("{:#}", Follower::new(folder.path()).news().unwrap_err());
    assert!(got.contains("config.toml:2") && got.contains("mappo.iterations"), "{got}");
}

#[test]
fn a_folder_without_a_run_and_one_that_vanishes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let until_error = |follower: &mut Follower| {
        let start = Instant::now();
        loop {
            match follower.news() {
                Err(error) => return (format!("{error:#}"), start.elapsed()),
                Ok(news) => assert!(news.is_none()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let (error, after) = until_error(&mut Follower::new(&run));
    assert!(error.contains("run holds no run: there is no metrics.csv") && after < PATIENCE, "{error}");
    std::fs::create_dir(&run).unwrap();
    let (error, after) = until_error(&mut Follower::new(&run));
    assert!(error.contains("--run takes the folder") && after < PATIENCE, "{error}");
    Writer::resume(&staged(&run).metrics(), 0).unwrap();
    let mut follower = Follower::new(&run);
    follower.news().unwrap().unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    let (error, after) = until_error(&mut follower);
    assert!(error.contains("is gone: it was moved or removed") && after >= PATIENCE, "{error}");
}
