//! A rollout in one kernel computes the bits of one that goes step by step.

use super::*;
use crate::env::{
    Communication, DeviceEnv, EnvRecording, RolloutBuffers, Spec, Spread, communication, spread,
};
use crate::gpu::{Class, Plan};
use crate::mappo::{EvalConfig, Evaluation};
use crate::nn::{Activation, CriticInput, Precision, Sharing};

/// An environment that does not say that it consists of functions.
struct StepByStep<'a>(&'a dyn Environment);

impl Environment for StepByStep<'_> {
    fn spec(&self) -> Spec {
        self.0.spec()
    }
    fn continuous(&self) -> bool {
        self.0.continuous()
    }
    fn choices(&self) -> Vec<u32> {
        self.0.choices()
    }
    fn state_dim(&self) -> u32 {
        self.0.state_dim()
    }
    fn identity(&self) -> String {
        self.0.identity()
    }
    fn truncations(&self, steps: u32) -> u32 {
        self.0.truncations(steps)
    }
    fn plan(&self, envs: u32, steps: u32) -> Plan {
        self.0.plan(envs, steps)
    }
    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        self.0.record(gpu, rollout)
    }
}

/// Agents that drift by their actions until one leaves; ends of both kinds, masks, a global state, and episodes shorter and longer
/// than a dispatch.
fn drift(agents: u32, choices: &[u32]) -> DeviceEnv {
    let level =
        if choices.is_empty() { "real(agent, 0u) - real(agent, 1u)" } else { "f32(choice(agent, 0u))" };
    let rules = format!(
        "
struct State {{ limit: f32 }}
struct AgentState {{ place: f32, last: f32 }}
fn reset() {{
    state.limit = 3.0 + 60.0 * random(0u).x;
    for (var a = 0u; a < agents(); a++) {{ set_place(a, random(1u + a).y); }}
}}
fn level_of(agent: u32) -> f32 {{ return {level}; }}
fn step() -> Outcome {{
    var outcome = CONTINUES;
    for (var a = 0u; a < agents(); a++) {{
        let level = clamp(level_of(a), -4.0, 4.0);
        set_last(a, level);
        set_place(a, get_place(a) + 0.3 * level);
        reward(a, level - 0.1 * f32(a));
        if (abs(get_place(a)) > state.limit) {{ outcome = TERMINATED; }}
    }}
    if (outcome == CONTINUES && steps_taken() >= 5u && random(9u + steps_taken()).x < 0.1) {{ outcome = TRUNCATED; }}
    return outcome;
}}
fn observe(agent: u32) {{
    feature(0u, get_place(agent));
    feature(1u, get_last(agent));
    feature(2u, state.limit);
    feature(3u, f32(steps_taken()));
}}
fn action_mask(agent: u32) -> u32 {{ return select(4294967294u, 4294967295u, get_place(agent) < 1.0); }}
fn global_state() {{ global_feature(0u, state.limit); }}
"
    );
    let actions = if choices.is_empty() { 2 } else { choices.iter().sum() };
    let builder = DeviceEnv::builder("drift", rules, Spec { agents, obs_dim: 4, actions }).truncates(5);
    let builder = builder.time_limit(40).state_dim(1);
    let builder = if choices.is_empty() { builder.continuous() } else { builder.choices(choices) };
    builder.build().unwrap()
}

/// All that iterations leave behind, as bits.
fn played(
    gpu: &Gpu,
    environment: &dyn Environment,
    config: &Config,
) -> (Vec<(&'static str, Vec<u32>)>, usize) {
    let mut trainer = Trainer::new(gpu, environment, config).unwrap();
    for _ in 0..3 {
        trainer.submit().unwrap();
        trainer.collect().unwrap();
    }
    let own = &trainer.buffers.rollout;
    let mut buffers = vec![
        ("observations", &own.observations),
        ("actions", &own.actions),
        ("rewards", &own.rewards),
        ("ends and masks", &own.dones_and_masks),
        ("episodes", &own.episodes),
        ("targets", &own.targets),
        ("values", &own.values),
        ("weights", &trainer.buffers.networks.params),
    ];
    buffers.extend(own.draws.as_ref().map(|draws| ("draws", draws)));
    let read = |(name, buffer): (&'static str, &wgpu::Buffer)| (name, trainer.gpu.read(buffer).unwrap());
    let mut all: Vec<_> = buffers.into_iter().map(read).collect();
    for state in &trainer.rollout.state {
        let crate::env::State::Device(state) = state else { unreachable!("environments on the device") };
        all.push(("state", trainer.gpu.read(state.buffer()).unwrap()));
    }
    let dispatches = trainer.rollout.collect.len();
    // Evaluations are greedy.
    let eval_config = EvalConfig { envs: 8, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(gpu, environment, config, &eval_config).unwrap();
    let returns = evaluation.run(&trainer).unwrap().returns;
    all.push(("returns", returns.iter().map(|it| (*it as f32).to_bits()).collect()));
    (all, dispatches)
}

fn config(envs: u32, steps: u32) -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = envs;
    config.ppo.rollout_steps = steps;
    config.ppo.epochs = 1;
    config.ppo.iterations = 3;
    config.ppo.seed = 11;
    config.network.hidden = vec![32, 20];
    config
}

/// Name, environment, numbers of environments and steps, and a change of the configuration.
type Case<'a> = (&'a str, &'a dyn Environment, u32, u32, fn(&mut Config));

#[test]
fn one_kernel_plays_as_step_by_step() {
    let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
    let mpe2 = Spread::new(spread::Definition::Mpe2);
    let many = mpe2.with_agents(19).unwrap();
    let reference = Communication::new(communication::Task::Reference);
    let (one_choice, choices, reals) = (drift(3, &[3]), drift(2, &[3, 4]), drift(5, &[]));
    let plain = |_: &mut Config| {};
    #[cfg(feature = "market")]
    let (positions, weights) = {
        use crate::env::{ActionSpace, small_market};
        let weights = ActionSpace::Weights;
        (small_market(&gpu, ActionSpace::Positions), small_market(&gpu, weights))
    };
    let cases: Vec<Case<'_>> = vec![
        ("spread", &mpe2, 72, 40, plain),
        ("more agents than a block has quads", &many, 8, 33, plain),
        ("communication", &reference, 40, 64, plain),
        ("one choice, a wide critic", &one_choice, 36, 70, |config| {
            config.network.critic_input = CriticInput::State;
            config.network.activation = Activation::Gelu;
        }),
        ("several choices", &choices, 20, 34, |config| config.network.hidden = vec![100]),
        ("real numbers", &reals, 24, 35, |config| config.network.activation = Activation::Tanh),
        ("squashed", &reals, 24, 35, |config| config.network.squash = true),
        ("f16", &one_choice, 12, 40, |config| config.device.precision = Precision::F16),
        ("input_norm of more inputs than a block has", &many, 8, 33, |config| {
            config.network.input_norm = true
        }),
        #[cfg(feature = "market")]
        ("positions in a market", &positions, 20, 36, plain),
        #[cfg(feature = "market")]
        ("weights in a market", &weights, 20, 36, |config| config.network.squash = true),
    ];
    for (name, environment, envs, steps, change) in cases {
        let mut config = config(envs, steps);
        change(&mut config);
        let (together, few) = played(&gpu, environment, &config);
        let (apart, many) = played(&gpu, &StepByStep(environment), &config);
        // llvmpipe, which stops long loops, plays fewer steps a dispatch with many agents.
        let most = if environment.spec().agents > 10 { steps.div_ceil(2) } else { steps.div_ceil(32) };
        assert!(few <= most as usize && many == 3 * steps as usize, "{name}: {few} and {many} dispatches");
        for ((what, found), (_, expected)) in together.iter().zip(&apart) {
            let different = found.iter().zip(expected).filter(|(a, b)| a != b).count();
            assert!(found == expected, "{name}: {different} of {} {what} differ", found.len());
        }
        let ends = &together[3].1[..(envs * steps) as usize];
        assert!(ends.iter().any(|end| *end >= 2), "{name}: nothing was truncated");
    }
}

/// An environment whose functions are those of another one.
struct Mistaken(DeviceEnv);

impl Environment for Mistaken {
    fn spec(&self) -> Spec {
        self.0.spec()
    }
    fn truncations(&self, steps: u32) -> u32 {
        self.0.truncations(steps)
    }
    fn plan(&self, envs: u32, steps: u32) -> Plan {
        self.0.plan(envs, steps)
    }
    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        Ok(Some(drift(self.spec().agents + 1, &[3])))
    }
    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        self.0.record(gpu, rollout)
    }
}

#[test]
fn functions_of_another_environment_are_refused() {
    let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
    let error = Trainer::new(&gpu, &Mistaken(drift(2, &[3])), &config(8, 16)).unwrap_err().to_string();
    assert!(error.contains("device_env") && error.contains("agents: 3"), "{error}");
}

/// Networks that do not fit, networks for every agent, normalised observations, and software adapters go step by step.
#[test]
fn other_rollouts_go_step_by_step() {
    let gpu = crate::testing::unchecked_gpu();
    let environment = drift(2, &[3]);
    for (class, change) in [
        (Class::Software, (|_| {}) as fn(&mut Config)),
        (Class::Hardware, |config| config.network.hidden = vec![200]),
        (Class::Hardware, |config| config.network.recurrent = true),
        (Class::Hardware, |config| config.network.networks = Sharing::Separate),
        (Class::Hardware, |config| config.network.observation_norm = true),
    ] {
        let mut config = config(64, 16);
        change(&mut config);
        let (_, steps) = played(&gpu.with_class(class), &environment, &config);
        assert!(steps >= 3 * 16, "{steps}");
    }
}
