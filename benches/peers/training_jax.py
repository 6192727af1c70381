"""Environment steps a second of MAPPO on simple_spread in JAX: a whole iteration is one jitted function.

    python benches/peers/training_jax.py [--envs 128] [--seconds 10]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
import spread
from spread import ACTIONS, AGENTS, FEATURES, HIDDEN, STEPS

# As in the other trainers; on GPUs the default rounds factors to 19 bits.
jax.config.update("jax_default_matmul_precision", "highest")

OTHERS = np.array([[other for other in range(AGENTS) if other != agent] for agent in range(AGENTS)])
PUSHES = spread.FORCE * np.array(spread.PUSHES, np.float32)
OWN = np.eye(AGENTS, dtype=np.float32)


def reset(key, environments):
    own, landmarks = jax.random.split(key)
    shape = (environments, AGENTS, 2)
    position = jax.random.uniform(own, shape, minval=-1, maxval=1)
    landmark = spread.LANDMARK_EXTENT * jax.random.uniform(landmarks, shape, minval=-1, maxval=1)
    return position, jnp.zeros(shape), landmark


def observe(task):
    """[environment, agent, feature]"""
    position, velocity, landmark = task
    landmarks = landmark[:, None] - position[:, :, None]
    others = position[:, OTHERS] - position[:, :, None]
    shape = (*position.shape[:2], -1)
    silence = jnp.zeros((*position.shape[:2], 2 * (AGENTS - 1)))
    return jnp.concatenate([velocity, position, landmarks.reshape(shape), others.reshape(shape), silence], -1)


def distances(a, b):
    # The root's slope at zero would be infinite; nothing is differentiated here, but zeros are exact.
    return jnp.sqrt(((a[:, :, None] - b[:, None]) ** 2).sum(-1))


def step(task, actions):
    """The next state, and every agent's reward, [environment]."""
    position, velocity, landmark = task
    distance = distances(position, position) + OWN
    depth = jnp.logaddexp(0.0, (spread.CONTACT - distance) / spread.MARGIN)
    contact = (spread.STIFFNESS * spread.MARGIN * depth / distance)[..., None] * (position[:, :, None] - position[:, None])
    force = jnp.asarray(PUSHES)[actions] + contact.sum(2)
    velocity = velocity * (1 - spread.DAMPING) + force * spread.TIME_STEP
    position = position + velocity * spread.TIME_STEP
    covered = -distances(position, landmark).min(1).sum(-1)
    bumps = (distances(position, position) + OWN < spread.CONTACT).sum((1, 2))
    return (position, velocity, landmark), AGENTS * (covered - 1) - bumps


def network(key, inputs, outputs, gain):
    layers, widths = [], [inputs, HIDDEN, HIDDEN, outputs]
    for index, key in enumerate(jax.random.split(key, 3)):
        scale = gain if index == 2 else 2**0.5
        weight = jax.nn.initializers.orthogonal(scale)(key, (widths[index], widths[index + 1]))
        norm = {"gain": jnp.ones(widths[index]), "offset": jnp.zeros(widths[index])}
        layers.append({"weight": weight, "bias": jnp.zeros(widths[index + 1]), **norm})
    return layers


def apply(layers, x):
    for index, layer in enumerate(layers):
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * layer["gain"] + layer["offset"]
        x = x @ layer["weight"] + layer["bias"]
        if index < len(layers) - 1:
            x = jnp.tanh(x)
    return x


def moments(norm):
    weight = jnp.maximum(norm[2], 1e-5)
    mean = norm[0] / weight
    return mean, jnp.sqrt(jnp.maximum(norm[1] / weight - mean**2, spread.VALUE_FLOOR))


def huber(error):
    size = jnp.abs(error)
    return jnp.where(size <= spread.HUBER, 0.5 * error**2, spread.HUBER * (size - 0.5 * spread.HUBER))


OPTIMIZER = optax.chain(optax.clip_by_global_norm(spread.MAX_NORM), optax.adam(spread.RATE, eps=spread.EPSILON))


def start(key):
    actor, critic = jax.random.split(key)
    networks = (network(actor, FEATURES, ACTIONS, 0.01), network(critic, FEATURES * AGENTS, 1, 1.0))
    return networks, tuple(OPTIMIZER.init(net) for net in networks), jnp.zeros(3)


def states(observation):
    """Every agent's critic reads what all agents see, as in the paper's code."""
    environments = observation.shape[0]
    return jnp.broadcast_to(observation.reshape(environments, 1, -1), (environments, AGENTS, AGENTS * FEATURES))


def iteration(learner, key, environments):
    (actor, critic), optimizers, norm = learner
    key, first = jax.random.split(key)

    def act(carry, key):
        task = carry
        observation = observe(task)
        state = states(observation)
        log = jax.nn.log_softmax(apply(actor, observation))
        action = jax.random.categorical(key, log)
        chosen = jnp.take_along_axis(log, action[..., None], -1)[..., 0]
        task, reward = step(task, action)
        reward = jnp.broadcast_to(reward[:, None], (environments, AGENTS))
        return task, (observation, state, action, chosen, apply(critic, state)[..., 0], reward)

    task, rows = jax.lax.scan(act, reset(first, environments), jax.random.split(key, STEPS))
    observation, state, action, old, old_values, rewards = rows
    mean, deviation = moments(norm)
    last = apply(critic, states(observe(task)))[..., 0]
    values = jnp.concatenate([old_values, last[None]]) * deviation + mean
    # Episodes terminate with the rollout.
    going = jnp.ones(STEPS).at[-1].set(0.0)

    def back(advantage, row):
        reward, value, following, on = row
        delta = reward + spread.GAMMA * following * on - value
        advantage = delta + spread.GAMMA * spread.LAMBDA * on * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(last), (rewards, values[:-1], values[1:], going), reverse=True)
    returns = advantages + values[:-1]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5)

    def actor_loss(actor):
        log = jax.nn.log_softmax(apply(actor, observation))
        ratio = jnp.exp(jnp.take_along_axis(log, action[..., None], -1)[..., 0] - old)
        surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - spread.CLIP, 1 + spread.CLIP) * advantages)
        entropy = -(jnp.exp(log) * log).sum(-1).mean()
        return -surrogate.mean() - spread.ENTROPY * entropy

    def critic_loss(critic, target):
        values = apply(critic, state)[..., 0]
        clipped = old_values + jnp.clip(values - old_values, -spread.CLIP, spread.CLIP)
        return jnp.maximum(huber(values - target), huber(clipped - target)).mean()

    def epoch(carry, _):
        (actor, critic), (own, other), norm = carry
        batch = jnp.stack([returns.mean(), (returns**2).mean(), 1.0])
        norm = spread.VALUE_BETA * norm + (1 - spread.VALUE_BETA) * batch
        mean, deviation = moments(norm)
        change, own = OPTIMIZER.update(jax.grad(actor_loss)(actor), own)
        actor = optax.apply_updates(actor, change)
        change, other = OPTIMIZER.update(jax.grad(critic_loss)(critic, (returns - mean) / deviation), other)
        critic = optax.apply_updates(critic, change)
        return ((actor, critic), (own, other), norm), None

    learner, _ = jax.lax.scan(epoch, ((actor, critic), optimizers, norm), None, length=spread.EPOCHS)
    return learner, rewards.mean()


def check():
    """The implementation follows the rules."""

    def play(positions, landmarks, actions):
        position, landmark = (jnp.array([pairs]) for pairs in (positions, landmarks))
        task, rewards = (position, jnp.zeros_like(position), landmark), []
        for action in actions:
            task, reward = jitted(task, jnp.array([action]))
            rewards.append(float(reward[0]))
        return rewards, [*np.ravel(task[0]).tolist(), *np.ravel(task[1]).tolist()]

    jitted = jax.jit(step)
    spread.check(play)


def main():
    parser = argparse.ArgumentParser(description="Times MAPPO on simple_spread in JAX.")
    parser.add_argument("--envs", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    check()
    jitted = jax.jit(iteration, static_argnums=2, donate_argnums=0)
    learner, key = start(jax.random.key(1)), jax.random.key(2)

    def iterate():
        nonlocal learner, key
        key, own = jax.random.split(key)
        learner, reward = jitted(learner, own, options.envs)
        reward.block_until_ready()

    rate = spread.measure(iterate, options.envs * STEPS, options.seconds)
    device = jax.devices()[0]
    name = "CPU" if device.platform == "cpu" else device.device_kind
    spread.answer(f"JAX {jax.__version__}, jitted", name, rate)


if __name__ == "__main__":
    main()
