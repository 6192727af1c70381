use super::*;

/// Written by `tests/fixtures/tensorboard.py` with TensorBoard's own messages and record writer.
const FIXTURE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tensorboard/events.out.tfevents.fixture"
));

#[test]
fn events_are_the_bytes_that_tensorboard_writes() {
    let tag = "train/".to_string() + &"t".repeat(300);
    let events = [
        version(1_700_000_000.25),
        scalars(1_700_000_001.5, 64, &[("rollout/ep_rew_mean", 1.5), ("train/approx_kl", 0.0)]),
        scalars(
            1_700_000_002.75,
            5_000_000_000,
            &[(&tag, -1e-30), ("nan", f32::NAN), ("inf", f32::INFINITY)],
        ),
        scalars(0.0, 1, &[]),
    ];
    // Protocol Buffers leave out a wall time of 0 only; it is written here.
    let written: Vec<u8> = events[..3].iter().flat_map(|event| record(event)).collect();
    assert_eq!(written, FIXTURE);
    assert_eq!(step(&events[3], false), Some(1));
    let steps: Vec<_> = super::events(FIXTURE).iter().map(|event| event.step).collect();
    assert_eq!(steps, [0, 64, 5_000_000_000]);
}

fn row(iteration: u32) -> Row {
    Row {
        iteration,
        env_steps: u64::from(iteration) * 100,
        seconds: f64::from(iteration),
        entropy: 0.5,
        ..Row::default()
    }
}

fn steps(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    let events = events(&bytes);
    assert_eq!(events.last().map(|event| event.end), Some(bytes.len()), "the last record is whole");
    events.iter().map(|event| event.step).collect()
}

#[test]
fn a_resumed_file_has_every_step_once_and_no_torn_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let rows: Vec<_> = (1..=5).map(row).collect();
    let mut writer = Writer::resume(&path, &[]).unwrap();
    rows.iter().for_each(|row| writer.write(row).unwrap());
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(steps(&path), [0, 100, 200, 300, 400, 500]);
    let whole = std::fs::read(&path).unwrap();
    // Places at which a machine can lose power, and every number of iterations that it can go on from.
    for length in (0..whole.len()).step_by(37).chain([whole.len()]) {
        for last in [0, 2, 3] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut writer = Writer::resume(&path, &rows[..last]).unwrap();
            assert_eq!(steps(&path).len(), last + 1, "{length} {last}");
            writer.write(&rows[last]).unwrap();
            check(&path, rows[last].env_steps).unwrap();
        }
    }
    assert_eq!(steps(&path), [0, 100, 200, 300, 400]);
    // The rows kept are as they were, with their wall times.
    assert!(whole.starts_with(&std::fs::read(&path).unwrap()[..whole.len() / 2]));
    let error = check(&path, 500).unwrap_err().to_string();
    assert!(error.contains("the last event is of step 400, not of 500"), "{error}");
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let error = check(&path, 500).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
    // A file of others.
    std::fs::write(&path, "my diary").unwrap();
    Writer::resume(&path, &rows[..1]).unwrap();
    assert_eq!(steps(&path), [0, 100]);
}

#[test]
fn values_that_are_not_known_have_no_tag() {
    let names = |row: &Row| tags(row).into_iter().map(|(tag, _)| tag).collect::<Vec<_>>();
    let without = names(&row(1));
    let known = Row { running_return: Some(2.5), evaluation: Some(1.0), ..row(1) };
    let with = tags(&known);
    assert_eq!(with.len(), without.len() + 2);
    assert!(with.contains(&("rollout/ep_rew_mean", 2.5)) && with.contains(&("train/entropy_loss", -0.5)));
    assert!(!without.contains(&"eval/mean_reward"));
}
