"""What the training peers share: simple_spread's numbers, the settings of MAPPO's code, and the check of an implementation.

The task is that of `phalanx::mappo::Config::on_policy_mpe`: three agents, episodes and rollouts of 25 steps, ten epochs with one
minibatch, actors of 18-64-64-5 and critics of 54-64-64-1 with tanh and LayerNorm (of the features and of every hidden layer), shared by
the agents, GAE, clipped surrogate, clipped Huber loss of normalised values, entropy bonus, clipped gradients, Adam, f32.
"""

import json
import pathlib
import time

AGENTS, ACTIONS, HIDDEN = 3, 5, 64
FEATURES = 4 + 2 * AGENTS + 4 * (AGENTS - 1)
STEPS, EPOCHS = 25, 10
GAMMA, LAMBDA, CLIP, HUBER, ENTROPY = 0.99, 0.95, 0.2, 10.0, 0.01
RATE, EPSILON, MAX_NORM = 7e-4, 1e-5, 10.0
VALUE_BETA, VALUE_FLOOR = 0.99999, 1e-2

TIME_STEP, DAMPING, FORCE = 0.1, 0.25, 5.0
STIFFNESS, MARGIN, CONTACT = 100.0, 1e-3, 0.3
# Stay, +x, -x, +y, -y.
PUSHES = [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
LANDMARK_EXTENT = 0.8

FIXTURE = pathlib.Path(__file__).parents[2] / "tests/fixtures/spread.json"


def check(play):
    """Fails unless `play` follows the rules of the paper's code in the fixture that phalanx is tested with.

    play(positions, landmarks, actions) -> rewards [step], positions and velocities at the end, flat; for one environment, with
    positions and landmarks [agent][xy] and actions [step][agent].
    """
    fixture = json.loads(FIXTURE.read_text())
    for start, wanted in zip(fixture["steps"], fixture["on_policy"]):
        numbers = start["start"]
        pairs = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
        digits = [int(digit) for digit in start["actions"]]
        actions = [digits[i : i + AGENTS] for i in range(0, len(digits), AGENTS)]
        rewards, end = play(pairs[:AGENTS], pairs[2 * AGENTS :], actions)
        for ours, theirs in zip([*rewards, *end], [*wanted["rewards"], *wanted["end"]], strict=True):
            assert abs(ours - theirs) < 2e-3 * max(1.0, abs(theirs)), (ours, theirs)


def measure(iterate, environment_steps, seconds, warm_up=2):
    """Environment steps a second of iterations, after two that may compile."""
    for _ in range(warm_up):
        iterate()
    count, start = 0, time.perf_counter()
    while count < warm_up or count == 0 or time.perf_counter() - start < seconds:
        iterate()
        count += 1
    return count * environment_steps / (time.perf_counter() - start)


def answer(name, device, rate):
    """Tells compare.py the result."""
    print(json.dumps({"name": name, "device": device, "steps_per_second": rate}))
