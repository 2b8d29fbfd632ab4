"""Which fault of a run can be told from its log? Eighteen faults, each planted, and eighteen sound runs, three times.

Every run is small and watched. Of the eighteen broken ones of a part each has one known fault (`FAULTS`); the sound
ones (`SOUND`) are the same recipes without a fault, and settings that are merely unusual. The rules of `diagnosis` were
written and tuned on the half ``tuning``: CartPole-v1 and Pendulum-v1, with DQN, SAC and CrossQ of stable-baselines3 and
sb3-contrib and with two plain loops. They were judged once on the half ``judged``, which nobody had looked at: a ball
in a valley, Acrobot-v1 and MountainCarContinuous-v0, with QR-DQN, TD3, DDPG and TQC, and with the same two loops on
other networks. The kinds of fault are the same in both. A run counts as named rightly if the *first* finding is the
fault that was planted; a sound run is accused if there is any finding.

What was decided beforehand: at least 14 of 18 named rightly and at most one of 18 accused, on the half ``judged``.

After that the rules were changed, with these logs in sight: what they say of the half ``judged`` is no longer blind.
The part ``fresh`` is asked in its place, with the rules as they stood when this sentence was committed, before any of
its runs was made. Each is made once and counts, whatever comes of it, and no rule is changed for it. The two numbers
are the same. Its seed is new, and so are its tasks: InvertedPendulum-v5, with three forces where actions are discrete,
Reacher-v5, MountainCar-v0, Acrobot-v1 cut off after 40 steps, and a walk between walls that costs.
The algorithms are met elsewhere on other tasks: DQN, TQC, CrossQ, DDPG, and the two loops on networks of other widths.

Columns: those of `probe.COLUMNS` but the status, and ``setting_<name>`` for what `diagnosis.SETTINGS` lists.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import diagnosis
from divergence_notes._extras import needs

with needs("studies"):
    import gymnasium
    import torch
    from stable_baselines3 import DDPG, DQN, SAC, TD3
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
    from torch import nn

    from divergence_notes import monitor
    from divergence_notes.probe import Probe

if TYPE_CHECKING:
    import pandas

FAULTS = {
    "discrete-copy-each-update": "no-target-network",
    "discrete-long-steps": "step-size",
    "discrete-short-sight": "discount",
    "discrete-inputs": "input-scale",
    "discrete-nan": "not-finite",
    "discrete-many-updates": "replay-ratio",
    "discrete-asleep": "dead-units",
    "continuous-copy-each-update": "no-target-network",
    "continuous-long-steps": "step-size",
    "continuous-rewards": "reward-scale",
    "continuous-limits": "time-limits",
    "continuous-shared-optimiser": "actor-moves-critic",
    "loop-no-copy": "no-target-network",
    "loop-no-discount": "discount",
    "loop-limits": "time-limits",
    "loop-dueling": "mixed-batch",
    "loop-offline": "offline",
    "pairs-shared-optimiser": "actor-moves-critic",
}
"""The broken runs, and what each suffers from."""

SOUND = (
    "discrete", "discrete-moving-average", "discrete-quick", "discrete-near", "discrete-three-steps", "discrete-tanh",
    "discrete-normalised", "discrete-small-rewards", "discrete-large-rewards", "continuous", "continuous-near",
    "continuous-quick", "continuous-second", "continuous-third", "loop", "loop-dueling-right", "loop-offline-wide",
    "pairs",
)  # fmt: skip
"""The runs in which no fault is planted. Not all of them are in good health."""

PARAMETERS = {"half": ("tuning", "judged", "fresh"), "name": (*FAULTS, *SOUND)}
SECONDS = 5
FLOAT_FORMAT = "%.6g"

_SEEDS = {"tuning": 11, "judged": 23, "fresh": 37}


class _Valley(gymnasium.Env):
    """A ball on the top of a hill, pushed to the left and to the right; each step pays the more the nearer it stays."""

    def __init__(self, *, discrete: bool, length: int = 100) -> None:
        self.observation_space = gymnasium.spaces.Box(-4, 4, (2,), np.float32)
        box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3) if discrete else box
        self.discrete, self.length = discrete, length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin near the top."""
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-0.3, 0.3, 2), 0
        return self.at.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Push once; beyond 2 it is over."""
        push = float(action) - 1 if self.discrete else float(np.clip(action[0], -1, 1))
        x, v = self.at
        v = 0.98 * v + 0.1 * push + 0.05 * x + 0.03 * self.np_random.normal()
        self.at = np.array([x + 0.2 * v, v])
        self.steps += 1
        over = bool(abs(self.at[0]) > 2)
        return self.at.astype(np.float32), float(np.exp(-(self.at[0] ** 2))), over, self.steps >= self.length, {}


class _Nan(gymnasium.RewardWrapper):
    """One reward that is not a number, late."""

    count = 0

    def reward(self, reward: Any) -> float:
        """Return the reward, or once none."""
        self.count += 1
        return float("nan") if self.count == 600 else float(reward)


class _AtTheEnd(gymnasium.Wrapper):
    """What an episode earns is paid with its last step."""

    def reset(self, **given: Any) -> tuple[Any, dict]:
        """Begin, with nothing earned."""
        self.sum = 0.0
        return self.env.reset(**given)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Do the step, and pay if it is the last."""
        seen, reward, over, cut, told = self.env.step(action)
        self.sum += float(reward)
        return seen, self.sum if over or cut else 0.0, over, cut, told


def run(*, half: str, name: str) -> "pandas.DataFrame":
    """Do one run, and return its log.

    Parameters
    ----------
    half, name : str
        As the module's docstring says.

    Returns
    -------
    DataFrame
        A row for each record.
    """
    torch.manual_seed(_SEEDS[half])
    torch.set_num_threads(1)
    kind = name.partition("-")[0]
    make = {"discrete": _discrete, "continuous": _continuous, "loop": _loop, "pairs": _pairs}[kind]
    history, settings = make(half, name)
    history = history.drop(columns="status")  # a word for what ended; here `not_finite` says more
    return history.assign(**{f"setting_{key}": value for key, value in settings.items()})


_MADE_SO = {
    "CrossQ": {"own_targets": True, "two_modes": True},
    "DQN": {"actor": False},
    "QRDQN": {"actor": False},
}
"""What `adapters.settings` says of algorithms today; the committed logs were written before it did."""


def of(log: "pandas.DataFrame") -> list[diagnosis.Finding]:
    """Return what the rules find in a log that `run` returned.

    Parameters
    ----------
    log : DataFrame
        With the settings in its columns.

    Returns
    -------
    list of Finding
    """
    found = log.iloc[0].filter(like="setting_").dropna()
    settings = {
        key.removeprefix("setting_"): getattr(value, "item", lambda v=value: v)() for key, value in found.items()
    }
    return diagnosis.diagnose(log, _MADE_SO.get(settings.get("algorithm"), {}) | settings)


def table(logs: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return what the rules say of each run, and from when on.

    Parameters
    ----------
    logs : DataFrame
        As `studies.load` gives them, or some of them.

    Returns
    -------
    DataFrame
        One row for each run: its `half` and `name`; the `fault` that was planted, "" for none; the first finding,
        `named`, "" for none; whether the two are the same, `right`; from which update on they were, whenever the log
        so far was asked, `named_at`; the update of the first alarm, `alarm_at`; and that of the last record, `updates`.
        What did not come is nan.
    """
    import pandas

    rows = []
    for half, name, log in _runs(logs):
        fault = FAULTS.get(name, "")
        said = [found[0].name if found else "" for found in (of(log.iloc[: k + 1]) for k in range(len(log)))]
        wrong = [k for k, each in enumerate(said) if each != fault]
        since, alarms = wrong[-1] + 1 if wrong else 0, np.flatnonzero(log["alarm"])
        rows.append({
            "half": half, "name": name, "fault": fault, "named": said[-1], "right": said[-1] == fault,
            "named_at": log["updates"][since] if fault and since < len(log) else np.nan,
            "alarm_at": log["updates"][alarms[0]] if len(alarms) else np.nan,
            "updates": log["updates"].iloc[-1],
        })  # fmt: skip
    return pandas.DataFrame(rows)


def _runs(logs: "pandas.DataFrame") -> Iterator[tuple[str, str, "pandas.DataFrame"]]:
    for half in PARAMETERS["half"]:
        for name in PARAMETERS["name"]:
            log = logs[(logs["half"] == half) & (logs["name"] == name)]
            if len(log):
                yield half, name, log.reset_index(drop=True)


def relative(log: "pandas.DataFrame") -> dict[str, np.ndarray]:
    """Return the columns of one run that can be compared between tasks, in units that no task chooses.

    Parameters
    ----------
    log : DataFrame
        Of one run.

    Returns
    -------
    dict
        For each column an array with one number for each record but the first: sizes of values are divided by the
        largest stored return, lengths are the logarithm of what they are in units of their own first, the signed TD
        error is divided by the absolute one, and growth is the change of log max_q per update.
    """
    earned, first = np.fmax(log["earned_low"].abs(), log["earned_high"].abs()), log.iloc[0]
    same = ("row_ratio", "margin", "certified", "effective_rank", "bound_ratio", "alignment", "action_churn")
    same += ("dormant", "dormant_layer", "feature_rank")
    with np.errstate(all="ignore"):
        found = {name: log[name] for name in same}
        found |= {name: log[name] / earned for name in ("max_q", "td_error", "value_churn", "greedy_gap")}
        found |= {name: np.log(log[name] / first[name]) for name in ("weight_norm", "feature_norm", "gradient_norm")}
        found["overestimation"] = log["overestimation"] / log["start_return"].abs()
        found["td_bias"] = log["td_bias"] / log["td_error"]
        found["growth_rate"] = np.log(log["max_q"]).diff() / log["updates"].diff()
    return {name: np.asarray(part, dtype=float)[1:] for name, part in found.items()}


def warnings(logs: "pandas.DataFrame", *, half: str) -> "pandas.DataFrame":
    """Return which columns leave the range of sound runs, and which of them first, when a run is broken.

    Parameters
    ----------
    logs : DataFrame
        As `studies.load` gives them.
    half : str
        The part of the runs that is asked: ``"judged"`` or ``"fresh"``.

    Returns
    -------
    DataFrame
        One row for each column: in how many broken runs of that part it warned, `warned`; in how many of them no other
        column did so earlier, `first`, which counts each of several that did so at once; in how many sound runs of that
        part it did, `false`; and the median number of updates at which it did in broken ones, `updates`.

    Notes
    -----
    The range of a column is that of all its `relative` numbers in the sound runs of the half ``tuning``, widened by a
    tenth on both sides. The order is that of ``warned - false``.
    """
    import pandas

    runs = [(part, name, log["updates"].to_numpy()[1:], relative(log)) for part, name, log in _runs(logs)]
    rows, at = [], {}
    for column in runs[0][3]:
        seen = np.concatenate([each[column] for part, name, _, each in runs if part == "tuning" and name in SOUND])
        seen = seen[np.isfinite(seen)]
        low, high = seen.min(), seen.max()
        wide = 0.1 * (high - low)
        for part, name, updates, each in runs:
            out = (each[column] < low - wide) | (each[column] > high + wide)
            if part == half:
                at[column, name] = float(updates[np.argmax(out)]) if out.any() else np.inf
    columns, broken = list(runs[0][3]), [name for part, name, *_ in runs if part == half and name in FAULTS]
    earliest = {name: min(at[column, name] for column in columns) for name in broken}
    sound = [name for part, name, *_ in runs if part == half and name in SOUND]
    for column in columns:
        when = np.array([at[column, name] for name in broken])
        warned = np.isfinite(when)
        rows.append({
            "column": column, "warned": int(warned.sum()),
            "first": int((warned & (when == [earliest[name] for name in broken])).sum()),
            "false": int(sum(np.isfinite(at[column, name]) for name in sound)),
            "updates": float(np.median(when[warned])) if warned.any() else np.nan,
        })  # fmt: skip
    found = pandas.DataFrame(rows)
    best = (found["false"] - found["warned"]).rename("order")
    return found.assign(order=best).sort_values(["order", "first"], ascending=[True, False], kind="stable",
                                                ignore_index=True).drop(columns="order")  # fmt: skip


class _Forces(gymnasium.ActionWrapper):
    """Push to the left, not, or to the right."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(3)

    def action(self, action: Any) -> np.ndarray:
        """Return a third of the largest force, in one of two directions, or none."""
        return (float(action) - 1) / 3 * self.env.action_space.high


def _robot(name: str) -> gymnasium.Env:
    """Return a task of MuJoCo whose observations are in single precision, as the networks are."""
    env = gymnasium.make(name)
    space = gymnasium.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
    return gymnasium.wrappers.TransformObservation(env, np.float32, space)


def _environment(half: str, *, discrete: bool, length: int = 100) -> gymnasium.Env:
    if half == "fresh":
        return _Forces(_robot("InvertedPendulum-v5")) if discrete else _robot("Reacher-v5")
    if half == "tuning":
        return gymnasium.make("CartPole-v1" if discrete else "Pendulum-v1")
    valley = _Valley(discrete=discrete, length=10**9)
    return gymnasium.wrappers.TimeLimit(valley, length)


def _watched(model: Any, steps: int, every: int) -> tuple["pandas.DataFrame", dict]:
    callback = monitor.watch(model, every=every, batch_size=64)
    model.learn(steps, callback=callback)
    return callback.history, callback.settings


def _discrete(half: str, name: str) -> tuple["pandas.DataFrame", dict]:
    """DQN or QR-DQN, with a fault by its name."""
    variant = name.removeprefix("discrete").removeprefix("-")
    env: gymnasium.Env | VecEnv = _environment(half, discrete=True)
    if half != "tuning" and variant in ("tanh", "near"):
        env = gymnasium.make("Acrobot-v1" if half == "judged" else "MountainCar-v0")
    scale = {"small-rewards": 0.1, "large-rewards": 10.0}.get(variant)
    if scale is not None:
        env = gymnasium.wrappers.TransformReward(env, lambda reward: scale * float(reward))
    if variant == "nan":
        env = _Nan(env)
    if variant == "short-sight":
        env = _AtTheEnd(env)
    if variant == "inputs":
        space = gymnasium.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
        env = gymnasium.wrappers.TransformObservation(env, lambda seen: np.float32(1e5) * seen, space)
    if variant == "normalised":
        env = VecNormalize(DummyVecEnv([lambda env=env: env]))
    settings: dict[str, Any] = {
        "learning_rate": 1e-3, "learning_starts": 200, "train_freq": 1, "batch_size": 64, "buffer_size": 10_000,
        "target_update_interval": 200, "exploration_fraction": 0.5, "exploration_final_eps": 0.1,
    }  # fmt: skip
    settings |= {
        "copy-each-update": {"target_update_interval": 1},
        "long-steps": {"learning_rate": 0.1},
        "short-sight": {"gamma": 0.3},
        "many-updates": {"gradient_steps": 20, "target_update_interval": 10},
        "moving-average": {"target_update_interval": 1, "tau": 0.005},
        "quick": {"learning_rate": 3e-3},
        "near": {"gamma": 0.9},
        "three-steps": {"n_steps": 3},
    }.get(variant, {})
    network: dict[str, Any] = {"net_arch": [96, 48] if half == "fresh" else [64, 64]}
    if variant == "tanh":
        network["activation_fn"] = nn.Tanh
    if half == "judged":
        from sb3_contrib import QRDQN

        algorithm, network["n_quantiles"] = QRDQN, 10
    else:
        algorithm = DQN
    model = algorithm("MlpPolicy", env, seed=_SEEDS[half], device="cpu", policy_kwargs=network, **settings)
    if variant == "asleep":
        with torch.no_grad():
            for net in (model.policy.quantile_net, model.policy.quantile_net_target) if half == "judged" else (
                model.policy.q_net, model.policy.q_net_target):  # fmt: skip
                _put_to_sleep(net)
    return _watched(model, 330 if variant == "many-updates" else 1000, 10 if variant == "many-updates" else 40)


def _put_to_sleep(net: nn.Module) -> None:
    """Give nine in ten units of the second hidden layer a bias from which they do not come back."""
    second = [module for module in net.modules() if isinstance(module, nn.Linear)][1]
    second.bias[: round(0.9 * len(second.bias))] = -30.0


def _continuous(half: str, name: str) -> tuple["pandas.DataFrame", dict]:
    """SAC, TD3 or TQC, with a fault by its name."""
    variant = name.removeprefix("continuous").removeprefix("-")
    env = _environment(half, discrete=False)
    if variant == "rewards":
        env = gymnasium.wrappers.TransformReward(env, lambda reward: 1e4 * float(reward))
    settings: dict[str, Any] = {
        "learning_rate": 1e-3, "learning_starts": 300, "batch_size": 64, "buffer_size": 10_000,
        "policy_kwargs": {"net_arch": [32, 32]},
    }  # fmt: skip
    from sb3_contrib import TQC, CrossQ

    chosen = {"tuning": (SAC, CrossQ, SAC), "judged": (TD3, TQC, DDPG), "fresh": (TQC, CrossQ, DDPG)}[half]
    algorithm = chosen[{"second": 1, "third": 2}.get(variant, 0)]
    if variant == "third":
        settings |= {"ent_coef": 0.1} if half == "tuning" else {}
        if half == "judged":
            env = gymnasium.make("MountainCarContinuous-v0")
        elif half == "fresh":
            env = _robot("InvertedPendulum-v5")
    settings |= {
        "copy-each-update": {"tau": 1.0},
        "long-steps": {"learning_rate": 0.1},
        "limits": {"replay_buffer_kwargs": {"handle_timeout_termination": False}},
        "quick": {"learning_rate": 3e-3},
        "near": {"gamma": 0.9},
    }.get(variant, {})
    model = algorithm("MlpPolicy", env, seed=_SEEDS[half], device="cpu", **settings)
    if variant == "shared-optimiser":
        model.actor.optimizer.add_param_group({"params": list(model.critic.parameters())})
    return _watched(model, 800, 25)


class _Values(nn.Module):
    """Values of all actions; with a head of values and advantages if asked."""

    def __init__(self, d: int, n_actions: int, *, width: int, dueling: str = "") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.value = nn.Linear(width, 1) if dueling else None
        self.advantage, self.dueling = nn.Linear(width, n_actions), dueling

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the values, (n, n_actions)."""
        features = self.body(seen)
        advantage = self.advantage(features)
        if self.value is None:
            return advantage
        mean = advantage.mean() if self.dueling == "wrong" else advantage.mean(dim=1, keepdim=True)
        return self.value(features) + advantage - mean


def _stored(env: gymnasium.Env, steps: int, seed: int, act: Callable[[np.ndarray], Any]) -> list[tuple]:
    """Return steps of a policy, in order of time."""
    rows, seen = [], env.reset(seed=seed)[0]
    for _ in range(steps):
        action = act(seen)
        after, reward, over, cut, _ = env.step(action)
        rows.append((seen, action, after, over, reward, cut))
        seen = env.reset()[0] if over or cut else after
    rows[-1] = (*rows[-1][:5], not over)  # the next step is one of another episode
    return rows


_PARTS = ("observations", "actions", "next_observations", "dones", "rewards", "cut")


def _columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    parts = {name: np.array([row[k] for row in rows]) for k, name in enumerate(_PARTS)}
    return {
        name: part if name == "actions" and part.dtype.kind == "i" else part.astype(np.float32)
        for name, part in parts.items()
    }


def _loop(half: str, name: str) -> tuple["pandas.DataFrame", dict]:
    """Q-learning with a network as one writes it in a file, online or from data."""
    import copy

    variant, seed = name.removeprefix("loop").removeprefix("-"), _SEEDS[half]
    rng = np.random.default_rng(seed)
    endless = variant in ("no-discount", "limits")
    if half == "judged":
        env: gymnasium.Env = _Valley(discrete=True, length=40)
    else:
        env = gymnasium.make("CartPole-v1" if half == "tuning" else "Acrobot-v1", max_episode_steps=40)
    if endless:
        env = _Unending(half)
    env.action_space.seed(seed)
    n_actions = int(env.action_space.n)
    dueling = {"dueling": "wrong", "dueling-right": "right"}.get(variant, "")
    width = {"tuning": 64, "judged": 48, "fresh": 56}[half]
    net = _Values(env.observation_space.shape[0], n_actions, width=width, dueling=dueling)
    target = net if variant == "no-copy" else copy.deepcopy(net)
    gamma = 1.0 if variant == "no-discount" else 0.99
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def targets(batch: dict) -> torch.Tensor:
        after = target(batch["next_observations"]).max(dim=1).values
        return batch["rewards"] + gamma * (1 - batch["dones"]) * after

    watching = Probe(net, targets, gamma=gamma, others=[] if target is net else [target])
    offline = variant.startswith("offline")
    if variant == "offline":  # one action in each state
        rows = _stored(env, 1500, seed, lambda seen: int(seen[0 if half == "judged" else -2] > 0) * (n_actions - 1))
    else:
        rows = _stored(env, 2000 if offline else 200, seed, lambda seen: env.action_space.sample())
    seen = env.reset(seed=seed)[0]
    for update in range(1200 if offline else 800):
        if not offline:
            greedy = rng.random() > 0.3
            with torch.no_grad():
                action = int(net(torch.as_tensor(seen)[None]).argmax()) if greedy else int(rng.integers(n_actions))
            after, reward, over, cut, _ = env.step(action)
            rows.append((seen, action, after, over, reward, cut))
            seen = env.reset()[0] if over or cut else after
        data = [rows[k] for k in rng.integers(len(rows), size=64)]
        batch = {key: torch.as_tensor(part) for key, part in _columns(data).items()}
        if variant == "limits":
            batch["dones"] = torch.maximum(batch["dones"], batch["cut"])
        if update % 40 == 0:
            told = _columns(rows)
            ends, cuts = told["dones"], told["cut"]
            if variant == "limits":
                ends, cuts = np.maximum(ends, cuts), np.zeros_like(cuts)
            watching.saw(told["rewards"], ends, cuts, observations=told["observations"], actions=told["actions"])
            renewals = update if target is net else update // 50
            watching(batch, step=update if offline else update + 200, renewals=renewals, updates=update)
        with torch.no_grad():
            wanted = targets(batch)
        taken = net(batch["observations"]).gather(1, batch["actions"][:, None])[:, 0]
        optimizer.zero_grad()
        nn.functional.mse_loss(taken, wanted).backward()
        optimizer.step()
        if target is not net and update % 50 == 49:
            target.load_state_dict(net.state_dict())
    told = {"gamma": gamma, "learning_rate": 1e-3, "optimizer": "Adam", "offline": offline, "batch_size": 64}
    return watching.history, told


class _Unending(gymnasium.Env):
    """A walk on a ring (tuning) or between two walls, paid (fresh: charged) for where one stands, that a limit cuts."""

    def __init__(self, half: str) -> None:
        self.ring, self.sign = half == "tuning", -1 if half == "fresh" else 1
        self.length = {"tuning": 30, "judged": 25, "fresh": 35}[half]
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def _seen(self) -> np.ndarray:
        x = self.at
        both = (np.cos(x), np.sin(x)) if self.ring else (x / 3, (x / 3) ** 2)
        return np.array(both, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin anywhere."""
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-3, 3), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Walk a little."""
        self.at += 0.3 * (int(action) - 1) + 0.05 * self.np_random.normal()
        if not self.ring:
            self.at = float(np.clip(self.at, -3, 3))
        self.steps += 1
        paid = self.sign * (0.5 + 0.5 * float(np.cos(self.at)))
        return self._seen(), paid, False, self.steps >= self.length, {}


def _pairs(half: str, name: str) -> tuple["pandas.DataFrame", dict]:
    """DDPG as one writes it in a file; by its fault the optimiser of the actor holds the critic's parameters too."""
    import copy

    seed, shared = _SEEDS[half], name == "pairs-shared-optimiser"
    rng = np.random.default_rng(seed)
    env = _robot("InvertedPendulum-v5") if half == "fresh" else _environment(half, discrete=False)
    scale = float(env.action_space.high[0])
    d, width, gamma, tau = env.observation_space.shape[0], {"tuning": 48, "judged": 64, "fresh": 40}[half], 0.98, 0.01
    critic = nn.Sequential(nn.Linear(d + 1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    actor = nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, 1), nn.Tanh())
    critic_target, actor_target = copy.deepcopy(critic), copy.deepcopy(actor)
    first = torch.optim.Adam(critic.parameters(), lr=1e-3)
    both = [*actor.parameters(), *critic.parameters()] if shared else list(actor.parameters())
    second = torch.optim.Adam(both, lr=1e-3)

    def values(net: nn.Module, seen: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return net(torch.cat([seen, actions], dim=1))

    def targets(batch: dict) -> torch.Tensor:
        after = values(critic_target, batch["next_observations"], actor_target(batch["next_observations"]))
        return batch["rewards"][:, None] + gamma * (1 - batch["dones"][:, None]) * after

    others = [critic_target, actor, actor_target]
    watching = Probe(critic, targets, gamma=gamma, values=values, policy=actor, others=others)
    rows = _stored(env, 300, seed, lambda seen: rng.uniform(-scale, scale, 1).astype(np.float32))
    rows = [(a, b / scale, *rest) for a, b, *rest in rows]
    seen = env.reset(seed=seed)[0]
    for update in range(600):
        with torch.no_grad():
            action = actor(torch.as_tensor(seen)[None])[0].numpy()
        action = np.clip(action + 0.2 * rng.normal(size=1), -1, 1).astype(np.float32)
        after, reward, over, cut, _ = env.step(scale * action)
        rows.append((seen, action, after, over, reward, cut))
        seen = env.reset()[0] if over or cut else after
        batch = {
            k: torch.as_tensor(v) for k, v in _columns([rows[k] for k in rng.integers(len(rows), size=64)]).items()
        }
        if update % 30 == 0:
            told = _columns(rows)
            known = {key: told[key] for key in ("observations", "actions")}
            watching.saw(told["rewards"], told["dones"], told["cut"], **known)
            watching(batch, step=update + 300, renewals=update, share=tau, updates=update)
        with torch.no_grad():
            wanted = targets(batch)
        first.zero_grad()
        nn.functional.mse_loss(values(critic, batch["observations"], batch["actions"]), wanted).backward()
        first.step()
        second.zero_grad()
        (-values(critic, batch["observations"], actor(batch["observations"])).mean()).backward()
        second.step()
        with torch.no_grad():
            for net, copy_ in ((critic, critic_target), (actor, actor_target)):
                for p, q in zip(net.parameters(), copy_.parameters(), strict=True):
                    q.lerp_(p, tau)
    told = {"gamma": gamma, "learning_rate": 1e-3, "optimizer": "Adam", "batch_size": 64, "updates_per_step": 1.0}
    return watching.history, told
