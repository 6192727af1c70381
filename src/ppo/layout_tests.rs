//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    adamw::AdamW {
        beta1, beta2, weight1, weight2, log_beta1, log_beta2, epsilon, decay, max_norm, actor_rate,
        critic_rate, agent_step, squares, pad,
    } = "AdamW" in "ppo/adamw";
    advantage_stats::AdvantageStats {
        size, agents, envs, masks, separate, minibatches, chunk, over, order, parts, pad,
    } = "AdvantageStats" in "ppo/advantage_stats";
    end_step::EndStep { nets, interval, growth, backoff } = "EndStep" in "ppo/end_step";
    ensemble::Ensemble { rows, outputs, stride, other_stride, weight, pad } = "Ensemble" in "ppo/ensemble";
    epoch::Epoch {
        weight, floor, enabled, number, places, target_kl, entropy, entropy_step, iterations,
        further, minibatch_stats, agent_step, agents, minibatches, first_place, groups,
        rate_decay, begins, pad,
    } = "Epoch" in "ppo/epoch";
    gae::Gae { steps, agents, envs, gamma, lambda, truncations, reward_scale, groups } = "Gae" in "ppo/gae";
    loss::Loss {
        actions, section, masks, grad_actor, grad_critic, clip, value_clip, huber, value, starts,
        factors, choices, choice_targets, groups, parameters, partial_sums,
    } = "Loss" in "ppo/loss";
    normalize::Normalize {
        first_slot, slots, quads, observed, state_dim, first_state, limit, pad,
    } = "Normalize" in "ppo/normalize";
    running_mean_std::RunningMeanStd {
        steps, agents, obs_dim, state_dim, quads, first_state, masks, separate, zero, parts, pad,
    } = "RunningMeanStd" in "ppo/running_mean_std";
    sample::Sample {
        step, steps, agents, quads, actions, stride, greedy, masks, seed_low, seed_high, starts,
        choice_targets,
    } = "Sample" in "ppo/sample";
    shuffle::Shuffle {
        seed_low, seed_high, epoch, quads, chunk, chunks, order, pad,
    } = "Shuffle" in "ppo/shuffle";
    write_metrics::WriteMetrics {
        statistics, rewards, envs, nets, actors, agent_steps, groups, parts,
    } = "WriteMetrics" in "ppo/write_metrics";
    write_metrics::Record {
        policy_loss, value_loss, entropy, approx_kl, clip_fraction, actor_norm, critic_norm,
        learning_rate, reward, return_sum, episodes, episode_steps, terminated, skipped, value_mean,
        value_deviation, loss_scale, epochs, explained_variance, active_fraction, skipped_in_a_row,
    } = "Record" in "ppo/write_metrics";
}
