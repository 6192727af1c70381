//! A device compiles each kernel once, for any number of trainers, evaluations and policies.

use phalanx::env::Spread;
use phalanx::env::spread::Definition;
use phalanx::gpu::{Class, Gpu, GpuOptions};
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Trainer};

#[test]
fn a_second_trainer_and_a_second_evaluation_compile_nothing() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 5;
    config.network.hidden = vec![16];
    let eval_config = EvalConfig { envs: 8, episodes: 1, most_steps: 50, mode: ActionMode::Sampled };
    let spread = Spread::new(Definition::OnPolicy);
    let compiled_by = |gpu: &Gpu| {
        let before = gpu.kernels_compiled();
        let mut trainer = Trainer::new(gpu, &spread, &config).unwrap();
        let trainers = gpu.kernels_compiled() - before;
        let mut evaluation = Evaluation::new(gpu, &spread, &config, &eval_config).unwrap();
        trainer.train_until(1, |_| -> phalanx::Result<()> { Ok(()) }).unwrap();
        evaluation.run(&trainer).unwrap();
        (trainers, gpu.kernels_compiled() - before - trainers)
    };
    let (trainers, evaluations) = compiled_by(&gpu);
    // Training composes about twenty kernels. An evaluation shares them, except for the kernels that depend on its network
    // layout.
    assert!((10..40).contains(&trainers) && evaluations <= 2, "{trainers}, {evaluations}");
    assert!(gpu.kernels_reused() >= 10, "{} binds from the cache", gpu.kernels_reused());
    assert_eq!(compiled_by(&gpu), (0, 0));
    assert_eq!(compiled_by(&gpu.clone()), (0, 0));
    let other = match gpu.class() {
        Class::Hardware => Class::Software,
        Class::Software => Class::Hardware,
    };
    let other = gpu.with_class(other);
    assert!(compiled_by(&other).0 > 0, "another class has separate kernels");
    assert_eq!(compiled_by(&other), (0, 0));
    assert_eq!(compiled_by(&gpu), (0, 0));
}
