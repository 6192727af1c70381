use super::super::history::Tested;
use super::super::space::Domain;
use super::*;

fn header(seed: u64) -> Header {
    let mut settings = Settings::default();
    settings.mappo.ppo.seed = seed;
    let domain = Domain::Float { from: 0.5, to: 1.0, log: false };
    Header::new(&settings, &Space::from([("mappo.gamma".into(), domain)]), "c0ffee".into(), 3, Some(0))
        .unwrap()
}

fn journal(out: &Path) -> Journal {
    Journal::open(out, header(1)).unwrap()
}

fn taken(journal: &Journal, trials: usize) -> Claim {
    match journal.locked().unwrap().take(trials).unwrap() {
        Next::Train(claim) => claim,
        Next::Over { .. } => panic!("no trial is left"),
    }
}

fn over(journal: &Journal, trials: usize) -> usize {
    match journal.locked().unwrap().take(trials).unwrap() {
        Next::Train(claim) => panic!("{claim:?}"),
        Next::Over { elsewhere } => elsewhere,
    }
}

fn finished(trial: usize, score: f64) -> Event {
    let test = Tested { test_return: 0.25, test_sharpe: Some(-0.5), receipt: None };
    Event::Finished { trial, score, test }
}

#[test]
fn two_writers_take_different_trials_and_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    let (one, two) = (journal(&out), journal(&out));
    let (first, second) = (taken(&one, 3), taken(&two, 3));
    assert_eq!((first.number, second.number), (1, 2));
    assert!(!first.resumed && first.parameters != second.parameters);
    one.locked().unwrap().append(Event::Evaluated { trial: 1, iteration: 5, score: 0.5 }).unwrap();
    two.locked().unwrap().append(Event::Evaluated { trial: 2, iteration: 5, score: 1.5 }).unwrap();
    let third = taken(&two, 3);
    assert_eq!(third.number, 3);
    assert_eq!(over(&one, 3), 3, "others train");
    one.locked().unwrap().append(finished(1, 0.5)).unwrap();
    two.locked().unwrap().append(Event::Pruned { trial: 2, iteration: 5, test: None }).unwrap();
    two.locked().unwrap().append(Event::Failed { trial: 3, reason: "no memory".into() }).unwrap();
    drop((first, second, third));
    assert_eq!(over(&two, 3), 0);
    let locked = one.locked().unwrap();
    let history = locked.history();
    assert_eq!(["finished", "pruned", "failed", "started"].map(|name| history.count(name)), [1, 1, 1, 0]);
    let told: Vec<f64> = history.told().iter().map(|told| told.score).collect();
    assert_eq!(told, [0.5, 1.5, f64::NEG_INFINITY], "nothing of the held-out bars");
    drop(locked);
    assert_eq!(taken(&one, 4).number, 4, "more trials than before");

    // Many at once.
    let numbers: Vec<usize> = std::thread::scope(|scope| {
        let take = || (0..5).map(|_| taken(&journal(&out), 1000)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        let claims: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        claims.iter().map(|claim| claim.number).collect()
    });
    let distinct: BTreeSet<_> = numbers.iter().collect();
    assert_eq!((numbers.len(), distinct.len()), (20, 20), "{numbers:?}");
}

/// Pruned trials of older versions have none.
#[test]
fn the_test_of_a_pruned_trial_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let _claims = [taken(&journal, 2), taken(&journal, 2)];
    let test = Tested { test_return: -0.125, test_sharpe: None, receipt: None };
    journal
        .locked()
        .unwrap()
        .append(Event::Pruned { trial: 1, iteration: 5, test: Some(test.clone()) })
        .unwrap();
    let path = folder.path().join(SWEEP_JOURNAL);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "{\"event\":\"pruned\",\"trial\":2,\"iteration\":5}\n").unwrap();
    let locked = journal.locked().unwrap();
    let [one, two] = [1, 2].map(|trial| locked.history().get(trial).unwrap());
    assert_eq!((one.test(), two.test()), (Some(&test), None));
    assert_eq!((one.state.name(), two.state.name()), ("pruned", "pruned"));
}

#[test]
fn a_half_written_line_is_removed_and_a_changed_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let claim = taken(&journal, 2);
    let path = folder.path().join(SWEEP_JOURNAL);
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.lines().count(), 2);
    for torn in ["{\"event\":\"evaluated\",\"tri", "{", "\u{fffd}"] {
        std::fs::write(&path, format!("{whole}{torn}")).unwrap();
        journal.locked().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }
    drop(claim);
    std::fs::write(&path, format!("{whole}{{\"event\":\"evaluated\"\n")).unwrap();
    let error = |journal: &Journal| format!("{:#}", journal.locked().err().unwrap());
    assert!(error(&journal).contains("sweep.jsonl:3: not an event of a sweep"), "{}", error(&journal));
    std::fs::write(&path, format!("{whole}{}\n", "{\"event\":\"interrupted\",\"trial\":7}")).unwrap();
    assert!(error(&journal).contains("sweep.jsonl:3") && error(&journal).contains("trial 7 was not started"));
    std::fs::write(&path, "7\n").unwrap();
    assert!(error(&journal).contains("sweep.jsonl:1: not a journal of `trainer sweep`"));
    // Killed while it wrote the first line.
    std::fs::write(&path, &whole[..20]).unwrap();
    assert!(journal.locked().unwrap().history().trials().is_empty());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next(), whole.lines().next());
}

#[test]
fn a_trial_of_a_dead_process_is_begun_again_and_given_up_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let first = taken(&journal, 2);
    let parameters = first.parameters.clone();
    let second = taken(&journal, 2);
    // The lock goes with its process.
    drop(first);
    let again = taken(&journal, 2);
    assert_eq!((again.number, again.resumed), (1, true));
    assert_eq!(again.parameters, parameters);
    journal.locked().unwrap().append(Event::Evaluated { trial: 1, iteration: 5, score: 0.5 }).unwrap();
    drop(again);
    // An evaluation and an interrupt show that it can be trained.
    for _ in 0..2 {
        assert_eq!(taken(&journal, 2).number, 1);
    }
    journal.locked().unwrap().append(Event::Interrupted { trial: 1 }).unwrap();
    for _ in 0..3 {
        assert_eq!(taken(&journal, 2).number, 1);
    }
    assert_eq!(over(&journal, 2), 1);
    assert_eq!(journal.locked().unwrap().history().count("failed"), 1);
    drop(second);
    assert_eq!(taken(&journal, 2).number, 2);
}

#[test]
fn the_same_history_gives_the_same_parameters() {
    let run = || {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let mut all = Vec::new();
        for score in [0.5, 0.25, 0.75, 0.5, 1.0, 0.0] {
            let claim = taken(&journal, 6);
            journal.locked().unwrap().append(finished(claim.number, score)).unwrap();
            all.push(claim.parameters);
        }
        all
    };
    assert_eq!(run(), run());
}

#[test]
fn another_sweep_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    drop(journal(&out));
    let error = |header: Header| format!("{:#}", Journal::open(&out, header).err().unwrap());
    let changed = |change: &dyn Fn(&mut Header)| {
        let mut header = header(1);
        change(&mut header);
        error(header)
    };
    assert!(error(header(2)).contains("a sweep with other settings (`mappo.seed`): choose another folder"));
    assert!(changed(&|header| header.space.clear()).contains("a sweep with another space"));
    assert!(changed(&|header| header.candles.clear()).contains("a sweep with other candles"));
    assert!(changed(&|header| header.prune_after = None).contains("--no-pruning"));
    let place = out.join(SWEEP_JOURNAL);
    let text = std::fs::read_to_string(&place).unwrap();
    std::fs::write(&place, text.replacen("\"sweep\":1", "\"sweep\":2", 1)).unwrap();
    assert!(error(header(1)).contains("format 2, expected 1"));

    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    let refusal = Journal::open(&other, header(1)).err().unwrap().to_string();
    assert!(refusal.contains("is not empty and holds no sweep (there is `notes.txt`"), "{refusal}");
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1, "nothing was written");
}
