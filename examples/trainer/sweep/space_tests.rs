use super::*;

const BASE: [&str; 2] = ["evaluation.every=2", "mappo.clip=0.25"];

/// Reads a space; errors contain `FILE` instead of its path.
fn read_text(text: &str, sets: &[&str]) -> Result<Space, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("space.toml");
    std::fs::write(&path, text).unwrap();
    let sets: Vec<String> = BASE.iter().chain(sets).map(ToString::to_string).collect();
    let space = read(&path, &Base { file: None, sets: &sets });
    space.map_err(|error| format!("{error:#}").replace(path.to_str().unwrap(), "FILE"))
}

#[test]
fn ranges_and_choices_of_any_setting_are_read() {
    let text = "
[mappo]
actor_learning_rate = { from = 1e-4, to = 1e-2, log = true }
epochs = { from = 1, to = 8 }
num_envs = { from = 4, to = 64, log = true }
hidden = { choices = [[32, 32], [64, 64]] }
entropy = { from = 0, to = 1 }
recurrent.choices = [true, false]

[market.reward_scale]
from = 10
to = 1000.0
";
    let integers = |values: [i64; 2]| Value::Array(values.map(Value::Integer).to_vec());
    let wanted = [
        ("mappo.actor_learning_rate", Domain::Float { from: 1e-4, to: 1e-2, log: true }),
        ("mappo.epochs", Domain::Integer { from: 1, to: 8, log: false }),
        ("mappo.num_envs", Domain::Integer { from: 4, to: 64, log: true }),
        ("mappo.hidden", Domain::Choices(vec![integers([32, 32]), integers([64, 64])])),
        // Integers for a setting that is none.
        ("mappo.entropy", Domain::Float { from: 0.0, to: 1.0, log: false }),
        ("mappo.recurrent", Domain::Choices(vec![Value::Boolean(true), Value::Boolean(false)])),
        ("market.reward_scale", Domain::Float { from: 10.0, to: 1000.0, log: false }),
    ];
    let wanted: Space = wanted.map(|(name, domain)| (name.to_string(), domain)).into();
    assert_eq!(read_text(text, &[]).unwrap(), wanted);
    // The journal keeps it as JSON.
    let json = serde_json::to_string(&wanted).unwrap();
    assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), wanted);
}

#[test]
fn faults_are_named_with_file_line_and_setting() {
    for (text, wanted) in [
        ("", "FILE: no setting has a range or choices"),
        ("[mappo]\nepochs = { from = 1, to = }", "FILE:2: "),
        (
            "[mappo]\n\nepoch = { from = 1, to = 8 }",
            "FILE:3: unknown setting `mappo.epoch`; did you mean `mappo.epochs`?",
        ),
        ("[mapo]\nepochs = { from = 1, to = 8 }", "FILE:1: unknown setting `mapo`; did you mean `mappo`?"),
        ("[mappo]\nepochs = 4", "FILE:2: setting `mappo.epochs`: expected a range"),
        ("[mappo]\nepochs = {}", "FILE:2: setting `mappo.epochs`: expected a range"),
        (
            "[mappo]\nepochs = { from = 8, to = 1 }",
            "FILE:2: setting `mappo.epochs`: `from` (8) has to be less than `to` (1)",
        ),
        ("[mappo]\nepochs = { from = 8, to = 8 }", "has to be less than"),
        (
            "[mappo]\nepochs = { from = 1 }",
            "FILE:2: setting `mappo.epochs`: a range needs both `from` and `to`",
        ),
        (
            "[mappo]\nepochs = { from = 1, to = 8, step = 2 }",
            "FILE:2: setting `mappo.epochs`: unknown key `step`",
        ),
        (
            "[mappo]\nepochs = { from = 1, to = 8.5 }",
            "FILE:2: setting `mappo.epochs`: invalid type: floating point",
        ),
        ("[mappo]\nepochs = { from = 'a', to = 'b' }", "have to be numbers"),
        ("[mappo]\nepochs = { choices = [1], to = 3 }", "`choices` stand alone"),
        ("[mappo]\nepochs = { choices = [] }", "`choices` are empty"),
        ("[mappo]\nepochs = { choices = 3 }", "`choices` have to be an array"),
        (
            "[mappo]\nepochs = { choices = [4, 'four'] }",
            "FILE:2: setting `mappo.epochs`: invalid type: string",
        ),
        (
            "[mappo]\nentropy = { from = 0, to = 1, log = true }",
            "FILE:2: setting `mappo.entropy`: with `log = true`, `from` (0)",
        ),
        ("[mappo]\nentropy = { from = 0.1, to = 1, log = 3 }", "`log` has to be true or false"),
        ("[mappo]\nentropy = { from = 0.0, to = inf }", "have to be finite"),
        (
            "[mappo]\nentropy = { from = 1e-3, to = 1.0000000000000002e-3, log = true }",
            "too close for a logarithmic",
        ),
        ("[mappo]\nentropy = { from = -1e308, to = 1e308 }", "have to be finite"),
        // Either end, and every choice, is checked.
        ("[mappo]\n\n\ngamma = { from = 0.9, to = 1.5 }", "FILE:4: setting `mappo.gamma`: "),
        ("[mappo]\ngamma = { from = -0.9, to = 0.5 }", "FILE:2: setting `mappo.gamma`: "),
        ("[mappo]\nhidden = { choices = [[8], [0]] }", "FILE:2: setting `mappo.hidden`: "),
        (
            "[mappo]\niterations = { from = 1, to = 8 }",
            "FILE:2: setting `mappo.iterations`: with 1 there is no evaluation",
        ),
        (
            "[data]\ntrain_fraction = { from = 0.5, to = 0.8 }",
            "FILE:2: setting `data.train_fraction`: it decides which bars",
        ),
        (
            "[evaluation]\nfraction = { from = 0.1, to = 0.2 }",
            "FILE:2: setting `evaluation.fraction`: it decides which bars",
        ),
    ] {
        let error = read_text(text, &[]).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let text = "[mappo]\nepochs = { from = 1, to = 8 }";
    for set in ["mappo.epochs=3", "mappo = {epochs = 3}", "mappo.epochs =3"] {
        let error = read_text(text, &[set]).unwrap_err();
        assert_eq!(error, format!("FILE:2: setting `mappo.epochs`: it is also given by --set {set}"));
    }
    read_text(text, &["mappo.gamma=0.5"]).unwrap();
}

#[test]
fn a_trial_has_its_values_beside_those_of_all() {
    let sets = BASE.map(String::from);
    let base = Base { file: None, sets: &sets };
    let parameters = [
        ("mappo.hidden".to_string(), Value::Array(vec![Value::Integer(16)])),
        ("market.reward_scale".to_string(), Value::Float(7.5)),
    ];
    let settings = base.with(&parameters.into()).unwrap();
    assert_eq!(settings.mappo.network.hidden, [16]);
    assert_eq!((settings.market.reward_scale, settings.evaluation.every), (7.5, 2));
    let wrong = [("mappo.gamma".to_string(), Value::Float(2.0))].into();
    let error = base.with(&wrong).unwrap_err().to_string();
    assert!(error.starts_with("the trial: setting `mappo.gamma`"), "{error}");
}
