use std::path::Path;

use phalanx::files::faults::{Fault, KINDS, Kind};
use phalanx::gpu::GpuOptions;

use super::*;

/// Trains a tiny run in `out`, whose seed tells it from others.
fn trained(gpu: &Gpu, out: &Path, seed: u64) -> Result<ExitCode> {
    let sets = [
        "mappo.num_envs=4",
        "mappo.rollout_steps=8",
        "mappo.epochs=1",
        "mappo.hidden=[4]",
        "mappo.iterations=3",
        "market.episode_length=16",
        "checkpoints.every=1",
        "evaluation.every=2",
    ];
    let args = TrainArgs {
        data: vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/us4_daily.csv.gz")],
        out: out.into(),
        config: None,
        seed: Some(seed),
        iterations: None,
        tune: None,
        sets: sets.map(String::from).into(),
        force: true,
        resume: false,
        init: None,
        dashboard: false,
        jsonl: false,
    };
    train(&args, None, || Ok(gpu.clone()))
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The whole command, with a fault at every so many-th change to the file system; at each of them if `PHALANX_FAULTS` is set
/// (`make test-nightly`).
#[test]
fn a_training_that_fails_at_any_write_leaves_the_old_run_or_the_new_one() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let folder = crate::folder::tests::in_memory();
    let path = |name: &str| folder.path().join(name);
    for (name, seed) in [("old", 1), ("new", 2)] {
        trained(&gpu, &path(name), seed).unwrap();
    }
    let model = |name: &str| std::fs::read(path(name).join("model.safetensors")).unwrap();
    let models = [model("old"), model("new")];
    let losses = |run: &Folder| -> Vec<f64> {
        let curves = crate::metrics::curves(&run.metrics()).unwrap();
        curves.curves.iter().find(|(name, ..)| name == "Value loss").unwrap().2.clone()
    };
    let known = ["old", "new"].map(|name| losses(&Folder::new(&path(name))));
    assert_ne!(known[0], known[1]);
    assert!(models[0] != models[1]);
    let step = if std::env::var_os("PHALANX_FAULTS").is_some() { 1 } else { 17 };
    let mut counts = [0usize; 3];
    let mut operations = 0;
    for (number, kind) in KINDS.into_iter().enumerate() {
        // Other places for other kinds.
        for at in (3 * number..).step_by(step) {
            let out = path("run");
            copied(&path("old"), &out);
            let fault = Fault::inject(kind, at);
            let result = trained(&gpu, &out, 2);
            let struck = fault.struck();
            operations = operations.max(fault.operations().len());
            drop(fault);
            if !struck {
                result.unwrap();
                std::fs::remove_dir_all(&out).unwrap();
                break;
            }
            // The next process.
            let owned = Owned::open(&out, "test").unwrap().unwrap();
            let run = owned.folder();
            let found = std::fs::read(run.model()).unwrap();
            let which = models.iter().position(|model| *model == found).expect("a whole model");
            let settings = Settings::read(Some(&run.settings()), &[]).unwrap();
            assert_eq!(settings.mappo.ppo.seed, which as u64 + 1, "{kind:?} {at}");
            readable(run, &settings).unwrap();
            assert_eq!(losses(run), known[which], "{kind:?} {at}");
            assert!(Snapshots::open(&run.checkpoints(), 3).unwrap().latest().unwrap().is_some());
            assert!(which == 1 || result.is_err(), "{kind:?} {at} claims to be published");
            assert!(kind != Kind::ShortWrite || which == 1);
            counts[0] += 1;
            counts[1 + which] += 1;
            drop(owned);
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    let [injected, old, new] = counts;
    println!(
        "{injected} faults among {operations} changes: the old run stayed {old} times, the new one was whole {new} times"
    );
    assert!(operations > 80 && old > 5 && new > 5, "{operations} {old} {new}");
}
