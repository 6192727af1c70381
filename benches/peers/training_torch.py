"""Environment steps a second of MAPPO on simple_spread in PyTorch, updates included.

    python benches/peers/training_torch.py vectorised|notebook [--envs 128] [--seconds 10]

`vectorised` steps all environments as tensors on the device. `notebook` is how notebooks have it: one environment in numpy, a loop over
agents that asks each agent's own network for an action, lists, and an update of one agent after the other; a rollout is as many episodes.
"""

import argparse
import math
import time

import numpy as np
import spread
import torch
from spread import ACTIONS, AGENTS, FEATURES, HIDDEN, STEPS
from torch import nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Network(nn.Sequential):
    def __init__(self, inputs, outputs, gain):
        layers, width = [nn.LayerNorm(inputs)], inputs
        for _ in range(2):
            layers += [self.linear(width, HIDDEN, math.sqrt(2)), nn.Tanh(), nn.LayerNorm(HIDDEN)]
            width = HIDDEN
        super().__init__(*layers, self.linear(width, outputs, gain))

    @staticmethod
    def linear(inputs, outputs, gain):
        layer = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
        return layer


class ValueNorm:
    """Running mean and variance of the returns, with the bias of their start taken out."""

    def __init__(self):
        self.mean, self.square, self.weight = (torch.zeros((), device=DEVICE) for _ in range(3))

    def update(self, returns):
        beta = spread.VALUE_BETA
        self.mean = beta * self.mean + (1 - beta) * returns.mean()
        self.square = beta * self.square + (1 - beta) * (returns**2).mean()
        self.weight = beta * self.weight + (1 - beta)

    def moments(self):
        weight = self.weight.clamp(min=1e-5)
        mean = self.mean / weight
        return mean, (self.square / weight - mean**2).clamp(min=spread.VALUE_FLOOR).sqrt()


class Learner:
    """Networks, optimizers and the update."""

    def __init__(self):
        self.actor = Network(FEATURES, ACTIONS, 0.01).to(DEVICE)
        self.critic = Network(FEATURES * AGENTS, 1, 1.0).to(DEVICE)
        options = {"lr": spread.RATE, "eps": spread.EPSILON}
        self.optimizers = [torch.optim.Adam(net.parameters(), **options) for net in (self.actor, self.critic)]
        self.norm = ValueNorm()

    def advantages(self, rewards, values, ended):
        """GAE over [step, ...]; values have one step more, and are normalised."""
        mean, deviation = self.norm.moments()
        values = values * deviation + mean
        advantage, out = torch.zeros_like(rewards[0]), torch.zeros_like(rewards)
        for t in reversed(range(len(rewards))):
            on = 1.0 - ended[t]
            advantage = rewards[t] + spread.GAMMA * values[t + 1] * on - values[t] + spread.GAMMA * spread.LAMBDA * on * advantage
            out[t] = advantage
        return out, out + values[:-1]

    def update(self, observations, states, actions, old, old_values, advantages, returns):
        """Ten epochs on flat rows."""
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5)
        for _ in range(spread.EPOCHS):
            self.norm.update(returns)
            mean, deviation = self.norm.moments()
            target = (returns - mean) / deviation
            log = torch.log_softmax(self.actor(observations), -1)
            ratio = (log.gather(-1, actions[:, None])[:, 0] - old).exp()
            surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - spread.CLIP, 1 + spread.CLIP) * advantages)
            entropy = -(log.exp() * log).sum(-1).mean()
            values = self.critic(states)[:, 0]
            clipped = old_values + (values - old_values).clamp(-spread.CLIP, spread.CLIP)
            loss = torch.maximum(*(nn.functional.huber_loss(v, target, reduction="none", delta=spread.HUBER) for v in (values, clipped)))
            losses = (-surrogate.mean() - spread.ENTROPY * entropy, loss.mean())
            for optimizer, net, value in zip(self.optimizers, (self.actor, self.critic), losses):
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(net.parameters(), spread.MAX_NORM)
                optimizer.step()


class Spread:
    """simple_spread for [environment, agent, xy] tensors."""

    def __init__(self, environments):
        self.environments = environments
        self.pushes = spread.FORCE * torch.tensor(spread.PUSHES, device=DEVICE)
        # Adding it to a distance takes an agent's distance from itself out of a comparison.
        self.own = torch.eye(AGENTS, device=DEVICE)
        others = [[other for other in range(AGENTS) if other != agent] for agent in range(AGENTS)]
        self.others = torch.tensor(others, device=DEVICE)
        self.reset()

    def reset(self):
        shape = (self.environments, AGENTS, 2)
        self.position = 2 * torch.rand(shape, device=DEVICE) - 1
        self.landmark = spread.LANDMARK_EXTENT * (2 * torch.rand(shape, device=DEVICE) - 1)
        self.velocity = torch.zeros(shape, device=DEVICE)

    def observe(self):
        """[environment, agent, feature]"""
        landmarks = self.landmark[:, None] - self.position[:, :, None]
        apart = self.position[:, None] - self.position[:, :, None]
        index = self.others[None, :, :, None].expand(self.environments, -1, -1, 2)
        others = apart.gather(2, index)
        silence = torch.zeros((self.environments, AGENTS, 2 * (AGENTS - 1)), device=DEVICE)
        return torch.cat([self.velocity, self.position, landmarks.flatten(2), others.flatten(2), silence], -1)

    def step(self, actions):
        """Every agent's reward, [environment]."""
        apart = self.position[:, :, None] - self.position[:, None]
        distance = apart.norm(dim=-1) + self.own
        depth = nn.functional.softplus((spread.CONTACT - distance) / spread.MARGIN)
        contact = (spread.STIFFNESS * spread.MARGIN * depth / distance)[..., None] * apart
        force = self.pushes[actions] + contact.sum(2)
        self.velocity = self.velocity * (1 - spread.DAMPING) + force * spread.TIME_STEP
        self.position = self.position + self.velocity * spread.TIME_STEP
        covered = -(self.position[:, :, None] - self.landmark[:, None]).norm(dim=-1).amin(1).sum(-1)
        distance = (self.position[:, :, None] - self.position[:, None]).norm(dim=-1) + self.own
        bumps = (distance < spread.CONTACT).sum((1, 2))
        return AGENTS * (covered - 1) - bumps


class Alone:
    """simple_spread for one environment, in numpy, agent by agent."""

    def reset(self, random=np.random):
        self.position = [random.uniform(-1, 1, 2) for _ in range(AGENTS)]
        self.landmark = [random.uniform(-spread.LANDMARK_EXTENT, spread.LANDMARK_EXTENT, 2) for _ in range(AGENTS)]
        self.velocity = [np.zeros(2) for _ in range(AGENTS)]
        return [self.observe(agent) for agent in range(AGENTS)]

    def observe(self, agent):
        here = self.position[agent]
        others = [self.position[other] - here for other in range(AGENTS) if other != agent]
        landmarks = [landmark - here for landmark in self.landmark]
        silence = np.zeros(2 * (AGENTS - 1))
        return np.concatenate([self.velocity[agent], here, *landmarks, *others, silence]).astype(np.float32)

    def step(self, actions):
        forces = []
        for a, action in enumerate(actions):
            force = spread.FORCE * np.array(spread.PUSHES[action])
            for b in range(AGENTS):
                if a != b:
                    apart = self.position[a] - self.position[b]
                    distance = np.sqrt((apart**2).sum())
                    depth = np.logaddexp(0, (spread.CONTACT - distance) / spread.MARGIN) * spread.MARGIN
                    force = force + spread.STIFFNESS * depth * apart / distance
            forces.append(force)
        for a in range(AGENTS):
            self.velocity[a] = self.velocity[a] * (1 - spread.DAMPING) + forces[a] * spread.TIME_STEP
            self.position[a] = self.position[a] + self.velocity[a] * spread.TIME_STEP
        rewards = []
        for a in range(AGENTS):
            reward = 0.0
            for landmark in self.landmark:
                reward -= min(np.sqrt(((position - landmark) ** 2).sum()) for position in self.position)
            for other in self.position:
                if np.sqrt(((self.position[a] - other) ** 2).sum()) < spread.CONTACT:
                    reward -= 1
            rewards.append(reward)
        joint = sum(rewards)
        return [self.observe(agent) for agent in range(AGENTS)], [joint] * AGENTS


def vectorised(environments):
    """An iteration of all environments at once."""
    task, learner = Spread(environments), Learner()

    def iterate():
        rows = {name: [] for name in ("observations", "states", "actions", "logs", "values", "rewards")}
        with torch.no_grad():
            task.reset()
            for _ in range(STEPS):
                observation = task.observe()
                # Every agent's critic reads what all agents see, as in the paper's code.
                state = observation.flatten(1)[:, None].expand(-1, AGENTS, -1)
                log = torch.log_softmax(learner.actor(observation), -1)
                noise = -torch.empty_like(log).exponential_().log()
                action = (log + noise).argmax(-1)
                rows["observations"].append(observation)
                rows["states"].append(state)
                rows["actions"].append(action)
                rows["logs"].append(log.gather(-1, action[..., None])[..., 0])
                rows["values"].append(learner.critic(state)[..., 0])
                rows["rewards"].append(task.step(action)[:, None].expand(-1, AGENTS))
            last = task.observe().flatten(1)[:, None].expand(-1, AGENTS, -1)
            rows["values"].append(learner.critic(last)[..., 0])
            rows = {name: torch.stack(values) for name, values in rows.items()}
            ended = torch.zeros_like(rows["rewards"])
            # Episodes terminate with the rollout.
            ended[-1] = 1
            advantages, returns = learner.advantages(rows["rewards"], rows["values"], ended)
        learner.update(
            rows["observations"].flatten(0, 2), rows["states"].flatten(0, 2), rows["actions"].flatten(),
            rows["logs"].flatten(), rows["values"][:-1].flatten(), advantages.flatten(), returns.flatten(),
        )
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return iterate


def notebook(episodes):
    """An iteration of as many episodes, one after the other, each agent with a learner of its own."""
    task, learners = Alone(), [Learner() for _ in range(AGENTS)]

    def iterate():
        memory = [{name: [] for name in ("obs", "states", "actions", "logs", "values", "rewards", "ended")} for _ in learners]
        for _ in range(episodes):
            observations = task.reset()
            for step in range(STEPS):
                state = torch.tensor(np.concatenate(observations), device=DEVICE)
                actions = []
                for learner, kept, observation in zip(learners, memory, observations):
                    seen = torch.tensor(observation, device=DEVICE)
                    with torch.no_grad():
                        distribution = torch.distributions.Categorical(logits=learner.actor(seen))
                        action = distribution.sample()
                        kept["logs"].append(distribution.log_prob(action).item())
                        kept["values"].append(learner.critic(state).item())
                    kept["obs"].append(seen)
                    kept["states"].append(state)
                    kept["actions"].append(action.item())
                    actions.append(action.item())
                observations, rewards = task.step(actions)
                for kept, reward in zip(memory, rewards):
                    kept["rewards"].append(reward)
                    kept["ended"].append(float(step + 1 == STEPS))
        for learner, kept in zip(learners, memory):
            def column(name, dtype=torch.float32):
                return torch.tensor(kept[name], dtype=dtype, device=DEVICE)

            values = column("values")
            # No value follows the last step, which ends an episode.
            following = torch.cat([values, values[:1]])
            with torch.no_grad():
                advantages, returns = learner.advantages(column("rewards"), following, column("ended"))
            learner.update(
                torch.stack(kept["obs"]), torch.stack(kept["states"]), column("actions", torch.int64),
                column("logs"), values, advantages, returns,
            )

    return iterate


def check():
    """Both implementations follow the rules."""

    def tensors(positions, landmarks, actions):
        task = Spread(1)
        task.position, task.landmark = (torch.tensor([pairs], device=DEVICE) for pairs in (positions, landmarks))
        rewards = [task.step(torch.tensor([action], device=DEVICE)).item() for action in actions]
        return rewards, [*task.position.flatten().tolist(), *task.velocity.flatten().tolist()]

    def alone(positions, landmarks, actions):
        task = Alone()
        task.reset()
        task.position, task.landmark = ([np.array(pair) for pair in pairs] for pairs in (positions, landmarks))
        rewards = [task.step(action)[1][0] for action in actions]
        return rewards, np.concatenate([*task.position, *task.velocity]).tolist()

    spread.check(tensors)
    spread.check(alone)


def faster(iterate):
    """The number of threads, one or all, that an iteration takes less time with. On small tensors or a busy machine it is one."""
    times = {}
    for threads in {1, torch.get_num_threads()}:
        torch.set_num_threads(threads)
        iterate()
        start = time.perf_counter()
        iterate()
        times[threads] = time.perf_counter() - start
    return min(times, key=times.get)


def main():
    parser = argparse.ArgumentParser(description="Times MAPPO on simple_spread in PyTorch.")
    parser.add_argument("way", choices=["vectorised", "notebook"])
    parser.add_argument("--envs", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.manual_seed(1)
    if options.way == "notebook":
        # Single rows: a second thread only costs.
        torch.set_num_threads(1)
    check()
    iterate = {"vectorised": vectorised, "notebook": notebook}[options.way](options.envs)
    if DEVICE.type == "cpu" and options.way == "vectorised":
        torch.set_num_threads(faster(iterate))
    # The notebook's iteration is long, and nothing in it is compiled.
    rate = spread.measure(iterate, options.envs * STEPS, options.seconds, 2 if options.way == "vectorised" else 0)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    spread.answer(f"PyTorch {torch.__version__.split('+')[0]}, {options.way}", device, rate)


if __name__ == "__main__":
    main()
