use super::*;
use crate::env::{EnvRecording, RolloutBuffers, Spec};
use crate::nn::MOST_MULTIPLY_ADDS;
use crate::nn::{CriticInput, Precision, Shape, Storage};

/// A configuration with blocks of 64 rows by 64 outputs.
fn in_blocks() -> KernelConfig {
    let all = crate::nn::representative(Class::Hardware);
    let wide = |config: &KernelConfig| config.blocks.is_some_and(|blocks| blocks.quads == 16);
    all.into_iter().find(|config| wide(config) && config.storage == Storage::F32).unwrap()
}

/// An environment without steps, with a global state of this size.
struct Empty(u32);

impl Environment for Empty {
    fn spec(&self) -> Spec {
        Spec { agents: 4, obs_dim: 18, actions: 3 }
    }
    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(25)
    }
    fn state_dim(&self) -> u32 {
        self.0
    }
    fn plan(&self, _: u32, _: u32) -> Plan {
        Plan::new()
    }
    fn record(&self, _: &Gpu, _: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        Ok(EnvRecording { reset: vec![], steps: vec![], state: vec![] })
    }
}

const EMPTY: Empty = Empty(0);

fn layout() -> Layout {
    let shape = Shape { agents: 4, obs_dim: 18, actions: 3, hidden: vec![256, 256], ..Shape::default() };
    Layout::new(&shape).unwrap()
}

fn plain() -> KernelConfig {
    KernelConfig::plain(Class::Hardware, Storage::F32)
}

#[test]
fn f16_halves_what_is_stored_in_it_and_nothing_else() {
    let mut config = Config::default();
    config.ppo.num_envs = 4096;
    config.ppo.rollout_steps = 128;
    let sizes = Sizes::configured(&config, &EMPTY);
    let half = KernelConfig::plain(Class::Hardware, Storage::F16);
    assert_eq!(half.storage.precision(), Precision::F16);
    let plans = [plain(), half].map(|d| sizes.plan(&EMPTY, &layout(), &config, &d));
    let [whole, half] = plans.each_ref().map(Plan::entries);
    assert_eq!(whole.len(), half.len());
    let mut halved = Vec::new();
    for ((name, whole), (other, half)) in whole.iter().zip(half) {
        assert_eq!(name, other);
        if whole == half {
            continue;
        }
        assert_eq!(*whole, 2 * half, "{name}");
        halved.push(*name);
    }
    let expected =
        ["working weights", "observations", "carried observations", "activations", "activation gradients"];
    assert_eq!(halved, expected);
    let share = plans[1].bytes() as f64 / plans[0].bytes() as f64;
    assert!(share < 0.6, "{share:.2} of the memory");
}

/// With normalised observations, environments write f32, which is carried to the next rollout; networks read the configured storage.
#[test]
fn normalised_observations_need_their_raw_numbers_beside_them() {
    let mut config = Config::default();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 5;
    config.device.precision = Precision::F16;
    let sizes = [false, true].map(|observation_norm| {
        let mut config = config.clone();
        config.network.observation_norm = observation_norm;
        config.network.critic_input = CriticInput::State;
        Sizes::configured(&config, &Empty(3))
    });
    let half = KernelConfig::plain(Class::Hardware, Storage::F16);
    let [without, with] = sizes.map(|sizes| sizes.plan(&Empty(3), &layout(), &config, &half));
    let bytes = |plan: &Plan, name: &str| {
        plan.entries().iter().find(|(other, _)| *other == name).map(|(_, bytes)| *bytes)
    };
    // Slots 0 to 5 and one of a truncated episode, of 4 agents' 18 features and a state's 3 numbers.
    let (seen, carried, own) = (7 * (4 * 18 + 3) * 8, 4 * 18 * 8, 3 * 8);
    for (name, wanted) in [
        ("observations", [Some(seen * 2); 2]),
        ("raw observations", [None, Some(seen * 4)]),
        ("observation moments", [None, Some((4 * 18 + 3) * 16)]),
        ("carried observations", [Some(carried * 2), Some(carried * 4)]),
        ("carried states of the environments", [Some(own * 2), Some(own * 4)]),
        ("table of the normalisation", [Some(16), Some(6 * TABLE_ENTRY)]),
    ] {
        assert_eq!([bytes(&without, name), bytes(&with, name)], wanted, "{name}");
    }
}

/// The settings of the tests below: 4096 environments of 128 steps.
fn large() -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 4096;
    config.ppo.rollout_steps = 128;
    config.device.accumulation = 1;
    config
}

/// Budgets of cards of 4, 8 and 16 GB.
#[test]
fn cards_from_4_to_16_gigabytes_change_only_the_micro_batch() {
    let config = large();
    let slots = [3587, 7273, 14_646].map(|mebibytes| {
        let budget = Budget { total: mebibytes << 20, binding: 4 << 30, short_loops: false };
        let sizes = Sizes::fit(&config, &EMPTY, &layout(), &plain(), &budget).unwrap();
        let plan = sizes.plan(&EMPTY, &layout(), &config, &plain());
        assert!(budget.holds(&plan), "{mebibytes} MiB");
        assert_eq!(sizes.envs, 4096);
        sizes.micro_slots
    });
    assert!(slots.is_sorted() && slots[0] < slots[2], "a larger card gets larger micro-batches: {slots:?}");
}

/// The largest micro-batch that fits a budget leaves an evaluation nothing.
#[test]
fn reserved_memory_makes_the_micro_batch_smaller() {
    let config = large();
    let budget = Budget { total: 3587 << 20, binding: 4 << 30, short_loops: false };
    let fit = |budget: &Budget| Sizes::fit(&config, &EMPTY, &layout(), &plain(), budget);
    let bytes = |sizes: &Sizes| sizes.plan(&EMPTY, &layout(), &config, &plain()).bytes();
    let alone = budget.beside(0, fit).unwrap();
    // A byte more than it leaves.
    let reserved = budget.total - bytes(&alone) + 1;
    let beside = budget.beside(reserved, fit).unwrap();
    assert_eq!(beside.envs, alone.envs);
    assert!(beside.micro_slots < alone.micro_slots, "{} and {}", beside.micro_slots, alone.micro_slots);
    assert!(bytes(&beside) + reserved <= budget.total);
    // Reserved bytes that no micro-batch makes room for are an error about the whole budget.
    let error = budget.beside(budget.total - (1 << 20), fit).unwrap_err();
    assert!(matches!(error, Error::Budget { budget: 3587, needed, .. } if needed > 3587), "{error}");
    let text = error.to_string();
    for part in ["with 3586.00 MiB for evaluations, needs", "`memory_budget_mb`", "or do without evaluations"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn too_many_environments_are_an_error_that_names_how_many_fit() {
    let mut config = large();
    let small = Budget { total: 300 << 20, binding: 300 << 20, short_loops: false };
    let fit = |config: &Config| Sizes::fit(config, &EMPTY, &layout(), &plain(), &small);
    let error = fit(&config).unwrap_err();
    assert!(matches!(error, Error::Budget { budget: 300, needed, .. } if needed > 300), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("a plan of 4096 environments needs"), "{text}");
    let most: u32 = text.split("`num_envs = ").nth(1).unwrap().split('`').next().unwrap().parse().unwrap();
    assert!((4..4096).contains(&most) && most.is_multiple_of(4) && text.contains("shrink_envs"), "{text}");
    // Exactly as many fit, and as many are taken if the settings allow it.
    config.device.shrink_envs = true;
    assert_eq!(fit(&config).unwrap().envs, most);
    config.device.shrink_envs = false;
    config.ppo.num_envs = most;
    assert_eq!(fit(&config).unwrap().envs, most);
    config.ppo.num_envs = most + 4;
    fit(&config).unwrap_err();
}

#[test]
fn too_little_memory_for_four_environments_is_an_error_of_its_own() {
    let mut config = large();
    let none = Budget { total: 1 << 20, binding: 1 << 20, short_loops: false };
    for (envs, shrink_envs) in [(4096, false), (4096, true), (4, false)] {
        config.ppo.num_envs = envs;
        config.device.shrink_envs = shrink_envs;
        let error = Sizes::fit(&config, &EMPTY, &layout(), &plain(), &none).unwrap_err().to_string();
        for part in ["the smallest plan", "the budget is 1 MiB", "`rollout_steps`", "`memory_budget_mb`"] {
            assert!(error.contains(part), "{error}");
        }
    }
    // Enough in all, but not for one buffer.
    let narrow = Budget { total: 8 << 30, binding: 1 << 20, short_loops: false };
    let error = Sizes::fit(&config, &EMPTY, &layout(), &plain(), &narrow).unwrap_err().to_string();
    assert!(
        error.contains("the largest buffer of the smallest plan") && error.contains("has at most 1 MiB"),
        "{error}"
    );
    assert!(!error.contains("memory"), "it is another limit: {error}");
}

#[test]
fn sizes_beyond_32_bits_shrink_or_are_refused() {
    let mut config = Config::default();
    config.ppo.num_envs = 1_048_576;
    config.ppo.rollout_steps = 65_536;
    config.ppo.epochs = 1000;
    config.device.accumulation = 65_536;
    config.device.shrink_envs = true;
    config.validate().unwrap();
    // The table entries of 65 million micro-batches alone exceed the budget.
    let budget = Budget { total: 12 << 30, binding: 4 << 30, short_loops: false };
    let error = Sizes::fit(&config, &EMPTY, &layout(), &plain(), &budget).unwrap_err();
    assert!(matches!(error, Error::Budget { needed, .. } if needed > 16_000), "{error}");
    config.device.accumulation = 4;
    let sizes = Sizes::fit(&config, &EMPTY, &layout(), &plain(), &budget).unwrap();
    assert!(sizes.envs >= 4 && budget.holds(&sizes.plan(&EMPTY, &layout(), &config, &plain())));
    assert_eq!(u64::from(sizes.rows()), 4 * u64::from(sizes.envs) * 65_536);
}

#[test]
fn rollouts_that_no_dispatch_or_loop_reaches_shrink_or_are_refused() {
    let soft = KernelConfig::plain(Class::Software, Storage::F32);
    let small = Layout::new(&Shape { obs_dim: 1, hidden: vec![4], ..Shape::default() }).unwrap();
    let mut config = Config::default();
    config.ppo.num_envs = 65_536;
    config.ppo.rollout_steps = 64;
    config.device.accumulation = 1;
    let mut budget = Budget { total: 1 << 40, binding: 1 << 40, short_loops: false };
    let sizes = Sizes::fit(&config, &EMPTY, &small, &soft, &budget).unwrap();
    assert_eq!(sizes.envs, 65_536);
    assert!(sizes.micro_quads().div_ceil(soft.workgroup) <= 65_535, "{sizes:?}");
    // The reductions are trees: two million rows are short loops, a billion are not, with 256 workgroups of eight invocations.
    budget.short_loops = true;
    assert_eq!(Sizes::fit(&config, &EMPTY, &small, &soft, &budget).unwrap().envs, 65_536);
    config.ppo.num_envs = 1 << 18;
    config.ppo.rollout_steps = 1024;
    let error = Sizes::fit(&config, &EMPTY, &small, &soft, &budget).unwrap_err().to_string();
    assert!(error.contains("setting `num_envs`") && error.contains("65,535 iterations"), "{error}");
    config.device.shrink_envs = true;
    let sizes = Sizes::fit(&config, &EMPTY, &small, &soft, &budget).unwrap();
    assert!(error.contains(&format!("`num_envs = {}`", sizes.envs)), "{error}");
    assert!(sizes.envs < 1 << 18 && sizes.rows() / (256 * 32) * 2 < 65_535, "{sizes:?}");
}

#[test]
fn states_of_the_environments_follow_the_observations() {
    let seen = |critic_input, state_dim| {
        let mut config = Config::default();
        config.ppo.num_envs = 6;
        config.ppo.rollout_steps = 26;
        config.network.hidden = vec![8];
        config.network.critic_input = critic_input;
        let environment = Empty(state_dim);
        let layout = config.layout(&environment).unwrap();
        let sizes = Sizes::configured(&config, &environment);
        let half = KernelConfig::plain(Class::Hardware, Storage::Packed);
        let plan = Buffers::plan(&sizes, &layout, &half);
        let bytes =
            |wanted: &str| plan.entries().iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes);
        let states = bytes("carried states of the environments");
        (sizes.first_state(), bytes("observations"), bytes("carried observations"), states)
    };
    // 29 slots of 8 environments, 4 agents and 18 features.
    let observed = 29 * 8 * 4 * 18;
    let joint = (observed, Some(2 * observed), Some(2 * observed / 29), None);
    assert_eq!(seen(CriticInput::Joint, 0), joint);
    assert_eq!(seen(CriticInput::Joint, 7), joint, "an unused global state takes no memory");
    let with = (observed, Some(2 * (observed + 29 * 8 * 7)), Some(2 * observed / 29), Some(2 * 8 * 7));
    assert_eq!(seen(CriticInput::State, 7), with);
}

#[test]
fn rows_are_counted_as_by_hand() {
    let mut config = Config::default();
    config.ppo.num_envs = 6;
    config.ppo.rollout_steps = 26;
    config.device.accumulation = 4;
    let sizes = Sizes::configured(&config, &EMPTY);
    assert_eq!((sizes.envs, sizes.truncations, sizes.slots()), (8, 2, 29));
    assert_eq!((sizes.rows(), sizes.micro_slots, sizes.micro_batches()), (26 * 32, 7, 4));
    assert_eq!(sizes.micro_quads(), 7 * 8);
}

/// The order of shuffled minibatches, of whole sequences, follows the other flags.
#[test]
fn only_several_minibatches_need_an_order() {
    let mut config = Config::default();
    config.ppo.num_envs = 6;
    config.ppo.rollout_steps = 25;
    config.ppo.epochs = 3;
    let bytes = |config: &Config| {
        let sizes = Sizes::configured(config, &EMPTY);
        let plan = sizes.plan(&EMPTY, &layout(), config, &plain());
        let of = |wanted| plan.entries().iter().find(|(name, _)| *name == wanted).unwrap().1;
        (of("dones_and_masks"), of("table of the shuffles"), sizes.minibatch(0).len())
    };
    // Ends of 25 steps and masks of 27 slots.
    let flags = 4 * (25 + 27 * 4) * 8;
    assert_eq!(bytes(&config), (flags, 16, 25));
    config.ppo.minibatches = 2;
    // 25 places of two quads, and 2 to fill a vec4.
    assert_eq!(bytes(&config), (flags + 4 * 52, 3 * TABLE_ENTRY, 12));
    config.network.recurrent = true;
    config.network.chunk_length = 10;
    // The ends before slot 0, and 30 places.
    assert_eq!(bytes(&config), (flags + 4 * (8 + 60), 3 * TABLE_ENTRY, 10));
}

/// 131,072 and four times as many rows, of which no micro-batch keeps anything: only blocks that are being worked on, and the heads of a
/// slot, take memory.
#[test]
fn memory_of_blocks_does_not_depend_on_rows() {
    let plans = [128, 512].map(|steps| {
        let mut config = Config::default();
        config.ppo.num_envs = 256;
        config.ppo.rollout_steps = steps;
        config.network.hidden = vec![64, 64];
        let layout = config.layout(&EMPTY).unwrap();
        let sizes = Sizes::configured(&config, &EMPTY).for_kernels(&config, &layout, &in_blocks());
        assert_eq!(sizes.rows(), 1024 * steps);
        assert_eq!((sizes.micro_batches(), sizes.micro_slots), (1, steps));
        sizes.plan(&EMPTY, &layout, &config, &in_blocks())
    });
    let bytes = |plan: &Plan, wanted: &str| {
        plan.entries().iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes)
    };
    for (name, wanted) in [
        // 256 workgroups a stack with blocks of 64 rows, each of which has two hidden layers of 64.
        ("activations", Some(2 * 256 * 64 * 2 * 64 * 4)),
        ("LayerNorm statistics", Some(256 * 64 * 4 * 2 * 4)),
        ("heads", Some(256 * 64 * 4 * 4)),
        ("activation gradients", None),
    ] {
        assert_eq!(plans.each_ref().map(|plan| bytes(plan, name)), [wanted; 2], "{name}");
    }
}

/// As few dispatches as the limit on a dispatch's multiply-adds allows, whatever `accumulation` says.
#[test]
fn large_minibatches_of_blocks_are_cut_so_that_no_dispatch_takes_seconds() {
    let layout = |config: &Config| config.layout(&EMPTY).unwrap();
    for (envs, minibatches, cut) in [(64, 1, false), (1024, 1, false), (16_384, 1, true), (16_384, 16, false)]
    {
        let mut config = Config::default();
        config.ppo.num_envs = envs;
        config.ppo.rollout_steps = 128;
        config.ppo.minibatches = minibatches;
        config.network.hidden = vec![64, 64];
        config.device.accumulation = 8;
        let layout = layout(&config);
        let sizes = Sizes::configured(&config, &EMPTY).for_kernels(&config, &layout, &in_blocks());
        let row = layout.multiply_adds(0) + layout.multiply_adds(1);
        // Actors of 18 inputs, critics of 72, the heads of three and of one output.
        assert_eq!(row, 18 * 64 + 64 * 64 + 64 * 3 + 72 * 64 + 64 * 64 + 64);
        let of = |slots: u32| 3 * row * u64::from(sizes.rows_of_slot()) * u64::from(slots);
        assert!(of(sizes.micro_slots) <= MOST_MULTIPLY_ADDS, "{envs}");
        let fewest = of(128).div_ceil(u64::from(minibatches)).div_ceil(MOST_MULTIPLY_ADDS);
        assert_eq!(u64::from(sizes.micro_batches()), fewest * u64::from(minibatches), "{envs}");
        assert_eq!(fewest > 1, cut, "{envs}");
        assert!(sizes.launches(&in_blocks()) && sizes.value_slots >= sizes.micro_slots, "{envs}");
    }
}
