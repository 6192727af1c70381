use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

/// A training of 100 iterations, of which `done` are complete; some have episodes, evaluations and times.
fn app(done: u32) -> App {
    let mut app = App::new(Path::new("runs/demo"), 100, "quit");
    app.state = "training".into();
    for iteration in 1..=done {
        let at = f64::from(iteration) / 100.0;
        let now = |every: u32, value: f64| iteration.is_multiple_of(every).then_some(value);
        app.history.push(Row {
            iteration,
            env_steps: u64::from(iteration) * 2048,
            seconds: f64::from(iteration) * 0.5,
            steps_per_second: 4096.0,
            mean_return: now(2, 10.0 * at),
            running_return: Some(8.0 * at),
            entropy: 1.1 - at as f32,
            explained_variance: Some(at),
            evaluation: now(10, at),
            evaluation_sampled: now(10, -at),
            rollout_seconds: now(50, 0.3),
            values_seconds: now(50, 0.05),
            update_seconds: now(50, 0.15),
            gpu_memory_bytes: Some(40 << 20),
            host_memory_bytes: Some(3 << 30),
            loss_scale: 65_536.0,
            ..Row::default()
        });
    }
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
}

fn press(app: &mut App, code: KeyCode) -> bool {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn contains(screen: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(screen.contains(text), "`{text}` is missing in\n{screen}");
    }
}

/// Braille dots on a screen.
fn dots(screen: &str) -> usize {
    screen.chars().filter(|character| ('\u{2801}'..='\u{28ff}').contains(character)).count()
}

#[test]
fn every_view_has_its_values_and_curves() {
    let mut app = app(57);
    let wanted: [&[&str]; 4] = [
        &[
            "Return mean 5.6000 running 4.5600",
            "Evaluation greedy 0.5000 sampled -0.5000",
            "Explained variance 0.5700",
            "Episode length",
            "no episode has ended yet",
        ],
        &["Policy loss 0.0000", "Value loss", "Entropy 0.5300", "Approximate KL", "Clip fraction"],
        &["Actor gradient norm", "Critic gradient norm", "Learning rate", "Loss scale 65.5k"],
        &[
            "Steps/s now 4.10k average 4.10k",
            "Time rollout 60% values 10% update 30%",
            "GPU memory 40.0 MiB",
            "Host memory 3.00 GiB",
        ],
    ];
    for (number, wanted) in wanted.iter().enumerate() {
        assert!(press(&mut app, KeyCode::Char(char::from(b'1' + number as u8))));
        let screen = screen(&mut app, 120, 30);
        contains(&screen, wanted);
        contains(
            &screen,
            &["runs/demo", "training", "iteration 57/100  22s left  4.10k steps/s  117k steps"],
        );
        assert!(dots(&screen) > 50, "{screen}");
    }
}

#[test]
fn keys_change_views_and_scroll_in_range() {
    let mut app = app(20);
    let mut views = Vec::new();
    for code in [KeyCode::Tab, KeyCode::Right, KeyCode::Left, KeyCode::BackTab, KeyCode::BackTab] {
        press(&mut app, code);
        views.push(app.view);
    }
    assert_eq!(views, [1, 2, 1, 0, 3]);
    press(&mut app, KeyCode::Char('9'));
    assert_eq!(app.view, 3);
    press(&mut app, KeyCode::Char('2'));
    for wanted in ["Policy loss", "Value loss", "Entropy", "Approximate KL", "Clip fraction"] {
        contains(&screen(&mut app, 40, 12), &[wanted]);
        press(&mut app, KeyCode::Down);
    }
    for _ in 0..9 {
        press(&mut app, KeyCode::Down);
    }
    contains(&screen(&mut app, 40, 12), &["Explained variance", "Up Down: 6 of 6"]);
    press(&mut app, KeyCode::Up);
    contains(&screen(&mut app, 40, 12), &["Clip fraction", "5 of 6"]);
    press(&mut app, KeyCode::Char('1'));
    contains(&screen(&mut app, 40, 12), &["Return", "1 of 4"]);
    assert!(press(&mut app, KeyCode::Char('c')) && press(&mut app, KeyCode::Char('x')));
    assert!(!press(&mut app, KeyCode::Char('q')) && !press(&mut app, KeyCode::Esc));
    assert!(!app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
}

#[test]
fn terminals_of_every_size_are_drawn_and_the_smallest_say_so() {
    for done in [0, 1, 2, 100] {
        let mut app = app(done);
        app.title = "/a/path/that/is/longer/than/the/terminal/is/wide/runs/demo".into();
        for (width, height) in [(1, 1), (20, 4), (30, 9), (36, 200), (80, 24), (300, 10), (300, 100)] {
            for view in 0..VIEWS.len() {
                app.view = view;
                let screen = screen(&mut app, width, height);
                if width >= 30 {
                    contains(&screen, &["runs/demo", "iteration"]);
                } else if width == 20 {
                    contains(&screen, &["Terminal too small", "at least 30x9"]);
                }
            }
        }
    }
}

#[test]
fn strange_values_are_left_out_and_messages_are_shown() {
    let mut app = app(10);
    for (at, value) in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300].into_iter().enumerate() {
        let iteration = 11 + at as u32;
        let row = Row {
            iteration,
            env_steps: u64::MAX,
            mean_return: Some(value),
            running_return: Some(value),
            seconds: value,
            ..Row::default()
        };
        app.history.push(row);
    }
    app.message = Some("Stopping  after this iteration".into());
    contains(
        &screen(&mut app, 80, 24),
        &["Return mean 1.0000 running 0.8000", "Stopping  after this iteration"],
    );
}
