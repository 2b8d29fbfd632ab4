"""Chapter 4, When the update contracts."""

from dataclasses import replace

import numpy as np

from divergence_notes import contraction, examples, norms, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate, Update
from tests.equations import Equation
from tests.equations.key_equation import summed, td_errors
from tests.strategies import make_kernel

DEFINITIONS = {"eq-contraction", "eq-joint-spectral-radius"}

# --- Banach, and updates that take turns ---


def loop(gamma):
    """Return one state, one action, no reward: U1 multiplies the value by 1 - alpha (1 - gamma), exactly."""
    return FiniteMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), gamma)


def powers(gamma, alpha, k, start, *, shift=0):
    """Transcribe eq-banach where it is an equality."""
    return (1 - alpha * (1 - gamma)) ** (k + shift) * start


def package_powers(gamma, alpha, k, start):
    Q, step = np.full((1, 1), float(start)), Update.table(loop(gamma), alpha=alpha)
    for _ in range(k):
        Q = step(Q)
    return Q.item()


def product(gamma, alphas, start, *, skip=0, power=False, total=False):
    """Transcribe eq-product-bound where it is an equality."""
    betas = [1 - alpha * (1 - gamma) for alpha in alphas]
    if power:
        return betas[-1] ** len(betas) * start
    return (sum(betas) if total else np.prod(betas[: len(betas) - skip])) * start


def package_product(gamma, alphas, start):
    Q = np.full((1, 1), float(start))
    for alpha in alphas:
        Q = Update.table(loop(gamma), alpha=float(alpha))(Q)
    return Q.item()


# --- the update and its Jacobian ---


def update_cases(rng):
    out = []
    for kind in ("unsymmetric", "negative", "gram"):
        for _ in range(2):
            mdp = random_mdp(3, 2, gamma=0.8, branching=2, rng=rng)
            tables = {"Q1": rng.standard_normal((3, 2)), "Q2": rng.standard_normal((3, 2))}
            kernel, weights = make_kernel(kind, 6, rng), rng.dirichlet(np.ones(6))
            out.append({"update": KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=0.7), **tables})
    return out


def updates_only(rng):
    """Return the update cases without the tables."""
    return [{"update": case["update"]} for case in update_cases(rng)]


def difference(update, Q1, Q2, *, row_weight=False, sign=1.0, discount=True):
    """Transcribe eq-update-difference, all rows."""
    kernel, weights, gap = update.kernel, update.weights, (Q1 - Q2).ravel()
    backups = [td_errors(Q, update.mdp, discount=discount) + Q.ravel() for Q in (Q1, Q2)]
    out = np.zeros(len(gap))
    for i in range(len(gap)):
        for j in range(len(gap)):
            out[i] += ((i == j) - update.alpha * kernel[i, j] * weights[i if row_weight else j]) * gap[j]
    return out + sign * summed(update, backups[0] - backups[1])


def chain(mdp, policy):
    """Return P_pi entry by entry."""
    n_actions = mdp.R.shape[1]
    out = np.zeros((mdp.R.size, mdp.R.size))
    for j in range(mdp.R.size):
        for t in range(len(mdp.R)):
            out[j, t * n_actions + policy[t]] = mdp.P[j // n_actions, j % n_actions, t]
    return out


def piece(update, policy, *, row_weight=False, discount=True, sign=-1.0, inner=-1.0):
    """Transcribe eq-jacobian, entry by entry."""
    kernel, weights, mdp = update.kernel, update.weights, update.mdp
    n, P_pi = mdp.R.size, chain(mdp, policy)
    gamma = mdp.gamma if discount else 1.0
    out = np.eye(n)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                share = weights[i] if row_weight else weights[k]
                out[i, j] += sign * update.alpha * kernel[i, k] * share * ((k == j) + inner * gamma * P_pi[k, j])
    return out


def exact(update, *, discount=True, best=max, inflow=1.0, last_abs=True, row_weight=False):
    """Transcribe the second line of eq-exact-modulus."""
    kernel, weights, alpha, mdp = update.kernel, update.weights, update.alpha, update.mdp
    n, (n_states, n_actions) = mdp.R.size, mdp.R.shape
    gamma = mdp.gamma if discount else 1.0
    rows = []
    for i in range(n):
        share = [weights[i] if row_weight else weights[j] for j in range(n)]
        m = [(i == j) - alpha * kernel[i, j] * share[j] for j in range(n)]
        row = sum(abs(entry) for entry in m)
        for t in range(n_states):
            c = sum(kernel[i, j] * share[j] * mdp.P[j // n_actions, j % n_actions, t] for j in range(n))
            c *= inflow * alpha * gamma
            own = [m[t * n_actions + a] for a in range(n_actions)]
            row += best(abs(entry + c) - (abs(entry) if last_abs else entry) for entry in own)
        rows.append(row)
    return max(rows)


def bound(update, *, row_weight=False, flipped=False, unsigned=False, bootstrap=True):
    """Transcribe eq-row-sum-bound."""
    kernel, weights, alpha, gamma = update.kernel, update.weights, update.alpha, update.mdp.gamma
    n, rows = len(kernel), []
    for i in range(n):
        row = 0.0
        for j in range(n):
            pull = (kernel[j, i] if flipped else kernel[i, j]) * weights[i if row_weight else j]
            row += abs((i == j) - alpha * (abs(pull) if unsigned else pull)) + bootstrap * alpha * gamma * abs(pull)
        rows.append(row)
    return max(rows)


def as_noted(update):
    """Write the row sum with rho_i in its first term, as the notes print it."""
    kernel, weights, alpha, gamma = update.kernel, update.weights, update.alpha, update.mdp.gamma
    n = len(kernel)
    return max(
        sum(
            abs((i == j) - alpha * kernel[i, j] * weights[i]) + alpha * gamma * abs(kernel[i, j]) * weights[j]
            for j in range(n)
        )
        for i in range(n)
    )


def split_row(update, *, own_bootstrap=True, plus=1.0, dropped=False):
    """Transcribe eq-one-row, the largest over all rows."""
    kernel, weights, alpha, gamma = update.kernel, update.weights, update.alpha, update.mdp.gamma
    rows = []
    for i in range(len(kernel)):
        x = alpha * kernel[i, i] * weights[i]
        y = alpha * sum(abs(kernel[i, j]) * weights[j] for j in range(len(kernel)) if j != i)
        rows.append((1 - x if dropped else abs(1 - x)) + own_bootstrap * gamma * abs(x) + (1 + plus * gamma) * y)
    return max(rows)


def package_bound(update):
    return contraction.row_sum_bound(update.kernel, update.weights, alpha=update.alpha, gamma=update.mdp.gamma)


def long_steps(rng):
    longer = [{"update": replace(each["update"], alpha=9.0)} for each in updates_only(rng)]
    return [*updates_only(rng), *longer]


def anywhere(kernel, weights, *, gamma, alpha=1.0):
    """Return an update for a statement that looks at no process: every step of its own ends."""
    n = len(kernel)
    mdp = FiniteMDP(np.zeros((n, 1, n)), np.zeros((n, 1)), gamma)
    return KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha)


# --- row dominance ---


def margins(update, *, row_weight=False, unsigned=True, swapped=False, ratio=True):
    """Return right side minus left side of eq-row-dominance."""
    kernel, weights, gamma = update.kernel, update.weights, update.mdp.gamma
    out = []
    for i in range(len(kernel)):
        pulls = [kernel[i, j] * weights[i if row_weight else j] for j in range(len(kernel)) if j != i]
        others = sum(abs(pull) if unsigned else pull for pull in pulls)
        up, down = (1 + gamma, 1 - gamma) if ratio else (1.0, 1.0)
        up, down = (down, up) if swapped else (up, down)
        out.append(down * kernel[i, i] * weights[i] - up * others)
    return np.array(out)


def dominated(update, *, strict=True, **other):
    gap = margins(update, **other)
    return gap > 0 if strict else gap >= 0


def certified(update, *, largest=False, rate=True, **other):
    """Transcribe eq-certified-modulus."""
    gap = margins(update, **other)
    return 1 - (update.alpha if rate else 1.0) * (gap.max() if largest else gap.min())


def dominant_cases(rng):
    """Return kernels on both sides of the condition, with uneven shares and negative entries."""
    out = []
    for coupling in (0.002, 0.01, 0.03, 0.1):
        for _ in range(4):
            kernel = np.diag(1 + rng.random(4)) + coupling * rng.standard_normal((4, 4))
            out.append({"update": anywhere(kernel, rng.dirichlet(np.full(4, 5.0)), gamma=0.8)})
    return out


def certified_cases(rng):
    drawn = [case["update"] for case in dominant_cases(rng)]
    return [
        {"update": replace(update, alpha=1 / (np.diag(update.kernel) * update.weights).max())}
        for update in drawn
        if dominated(update).all()
    ]


# --- weights ---


def weighted(update, w, *, flipped=False, unweighted=False, first_only=False):
    """Transcribe eq-weighted-modulus over every policy."""
    n_states, n_actions = update.mdp.R.shape
    found = []
    for code in range(n_actions**n_states):
        policy = [(code // n_actions**t) % n_actions for t in range(n_states)]
        size = np.abs(piece(update, policy))
        scale = np.ones(len(w)) if unweighted else (1 / w if flipped else w)
        found.append(max(sum(size[i, j] * scale[j] for j in range(len(w))) / scale[i] for i in range(len(w))))
    return found[0] if first_only else max(found)


def weighted_cases(rng):
    return [case | {"w": norms.weighted_modulus(case["update"])[1]} for case in updates_only(rng)]


# Two pairs that both lead to the first, coupling 0.3, rho = (0.2, 0.8), gamma = 0.1, alpha = 1. Row 1 of m is
# (0.8, -0.24), the inflow 0.1 * (0.2 + 0.24) = 0.044: 0.844 + 0.24 = 1.084, and the bound is the same.
TO_FIRST = FiniteMDP(np.array([[[1.0, 0.0]], [[1.0, 0.0]]]), np.zeros((2, 1)), 0.1)
TRAP = KernelUpdate(TO_FIRST, kernel=[[1.0, 0.3], [0.3, 1.0]], weights=[0.2, 0.8], alpha=1.0)


# --- the largest step ---


def rows_of_pieces(update, **version):
    """Return row i of each G_pi = K D (I - gamma P_pi), entry by entry, over every policy."""
    n_states, n_actions = update.mdp.R.shape
    codes = range(n_actions**n_states)
    policies = [[(code // n_actions**t) % n_actions for t in range(n_states)] for code in codes]
    unit = replace(update, alpha=1.0)
    return [(np.eye(update.mdp.R.size) - piece(unit, policy, **version)) for policy in policies]


def dominated_pieces(update, *, strict=True, unsigned=True, positive=True, one_policy=False, **version):
    """Transcribe eq-some-step over all rows and policies."""
    holds = []
    for G in rows_of_pieces(update, **version)[: 1 if one_policy else None]:
        for i in range(len(G)):
            beside = sum(abs(G[i, j]) if unsigned else G[i, j] for j in range(len(G)) if j != i)
            own = G[i, i] if positive else abs(G[i, i])
            holds.append(own > beside if strict else own >= beside)
    return all(holds)


def largest_step(update, *, factor=2.0, over=max, diagonal=False, columns=False, **version):
    """Transcribe eq-largest-step."""
    sums = []
    for G in rows_of_pieces(update, **version):
        G = G.T if columns else G
        sums.append(over(abs(G[i, i]) if diagonal else sum(abs(entry) for entry in G[i]) for i in range(len(G))))
    return factor / over(sums)


def step_cases(rng, *, inside):
    """Return updates on two states with two actions that some step, or none, makes a contraction."""
    out = []
    while len(out) < 40:
        mdp = random_mdp(2, 2, gamma=float(rng.choice([0.3, 0.6])), branching=2, rng=rng)
        kernel = np.diag(1 + rng.random(4)) + rng.choice([0.03, 0.06, 0.1, 0.2]) * rng.standard_normal((4, 4))
        kernel *= 1 if inside else rng.choice([-1, 1])  # a kernel that pushes the wrong way has a negative diagonal
        update = KernelUpdate(mdp, kernel=kernel, weights=rng.dirichlet(np.full(4, 5.0)), alpha=1.0)
        if dominated_pieces(update) or not inside:
            out.append({"update": update})
    return out


# one state, one action: G = K (1 - gamma) = 3/2 for K = 3 and gamma = 1/2, so the steps end at 4/3
ALONE = KernelUpdate(loop(0.5), kernel=[[3.0]], weights=[1.0], alpha=1.0)
STUCK = KernelUpdate(replace(TO_FIRST, gamma=0.5), kernel=np.eye(2), weights=[1.0, 0.0], alpha=1.0)

# --- on the tables of the features ---


def on_features(update, phi, policy, *, sign=-1.0, shares=True, discount=True, square=False):
    """Transcribe eq-on-features, entry by entry."""
    mdp, weights = update.mdp, update.weights if shares else np.ones(len(update.weights))
    n, p = phi.shape
    flow = (mdp.gamma if discount else 1.0) * chain(mdp, policy)
    out = np.eye(p)
    for k in range(p):
        for m in range(p):
            for i in range(n):
                share = weights[i] ** 2 if square else weights[i]
                after = phi[i, m] - sum(flow[i, j] * phi[j, m] for j in range(n))
                out[k, m] += sign * update.alpha * phi[i, k] * share * after
    return out


def package_on_features(update, phi, policy):
    """Read A off J: J Phi = Phi A."""
    return np.linalg.lstsq(phi, update.jacobian(policy) @ phi)[0]


def features_cases(rng):
    out = []
    for p in (1, 2, 5):
        mdp = random_mdp(3, 2, gamma=0.8, branching=2, rng=rng)
        phi = rng.standard_normal((6, p))
        weights = rng.dirichlet(np.ones(6))
        update = KernelUpdate(mdp, kernel=phi @ phi.T, weights=weights, alpha=0.3)
        out.append({"update": update, "phi": phi, "policy": rng.integers(2, size=3)})
    return out


LINE = examples.w_to_2w(0.4)  # the first state alone: A = 1 - 0.1 (1 - 2 * 0.4) = 0.98

# --- tables ---


def table_modulus(gamma, alpha, weights):
    """Return the exact modulus of a table on a ring of states that never ends."""
    n = len(weights)
    mdp = FiniteMDP(np.roll(np.eye(n), 1, axis=1)[:, None, :], np.zeros((n, 1)), gamma)
    return contraction.exact_modulus(Update.shares(mdp, weights=weights, alpha=alpha))


# --- where it can come to rest ---


def expected_step(mdp, features, theta, weights, *, weighted=True, best=np.max, discounted=True, sign=1):
    """Transcribe the left side of eq-rest."""
    Q = (features @ theta).reshape(mdp.R.shape)
    after = [[sum(p * best(row) for p, row in zip(P, Q, strict=True)) for P in by_action] for by_action in mdp.P]
    backup = mdp.R + (mdp.gamma if discounted else 1.0) * np.array(after)
    D = np.diag(weights) if weighted else np.eye(len(weights))
    return sign * features.T @ D @ (backup - Q).ravel()


def package_expected_step(mdp, features, theta, weights):
    return (updates.linear_step(theta, features, mdp, weights=weights, alpha=0.5) - theta) / 0.5


EQUATIONS = {
    "eq-banach": Equation(
        printed=powers,
        package=package_powers,
        cases=lambda rng: [
            {"gamma": rng.uniform(0.1, 0.9), "alpha": rng.uniform(0.1, 1), "k": int(k), "start": rng.uniform(1, 3)}
            for k in rng.integers(0, 8, size=5)
        ],
        closed=({"gamma": 0.5, "alpha": 1.0, "k": 3, "start": 2.0}, 0.25),
        wrong={
            "one step more": lambda **given: powers(**given, shift=1),
            "one step less": lambda **given: powers(**given, shift=-1),
            "times k": lambda gamma, alpha, k, start: (1 - alpha * (1 - gamma)) * k * start,
        },
    ),
    "eq-update-difference": Equation(
        printed=difference,
        package=lambda update, Q1, Q2: (update(Q1) - update(Q2)).ravel(),
        cases=update_cases,
        # K = [[2, 1], [1, 2]], rho = (1/4, 3/4), alpha = 1, gamma = 0, Q1 - Q2 = (0, 1): (-3/4, 1 - 3/2)
        closed=(
            {
                "update": KernelUpdate(
                    replace(TO_FIRST, gamma=0), kernel=[[2.0, 1.0], [1.0, 2.0]], weights=[0.25, 0.75], alpha=1
                ),
                "Q1": np.array([[0.0], [1.0]]),
                "Q2": np.zeros((2, 1)),
            },
            np.array([-0.75, -0.5]),
        ),
        wrong={
            "rho_i for rho_j": lambda **given: difference(**given, row_weight=True),
            "sign of the second sum": lambda **given: difference(**given, sign=-1.0),
            "no gamma": lambda **given: difference(**given, discount=False),
        },
    ),
    "eq-jacobian": Equation(
        printed=piece,
        package=lambda update, policy: update.jacobian(policy),
        cases=lambda rng: [case | {"policy": rng.integers(2, size=3)} for case in updates_only(rng)],
        closed=({"update": TRAP, "policy": np.zeros(2, dtype=int)}, np.array([[0.844, -0.24], [0.026, 0.2]])),
        wrong={
            "D K for K D": lambda **given: piece(**given, row_weight=True),
            "no gamma": lambda **given: piece(**given, discount=False),
            "plus for minus": lambda **given: piece(**given, sign=1.0),
            "plus inside": lambda **given: piece(**given, inner=1.0),
        },
    ),
    "eq-exact-modulus": Equation(
        printed=exact,
        package=contraction.exact_modulus,
        cases=updates_only,
        closed=({"update": TRAP}, 1.084),
        wrong={
            "no gamma": lambda **given: exact(**given, discount=False),
            "the least action": lambda **given: exact(**given, best=min),
            "sign of the inflow": lambda **given: exact(**given, inflow=-1.0),
            "an absolute value left out": lambda **given: exact(**given, last_abs=False),
            "rho_i for rho_j": lambda **given: exact(**given, row_weight=True),
            "the row-sum bound": bound,
        },
    ),
    "eq-row-sum-bound": Equation(
        printed=bound,
        package=package_bound,
        cases=updates_only,
        closed=({"update": TRAP}, 1.084),
        wrong={
            "rho_i for rho_j, as in the notes": as_noted,
            "rho_i for rho_j in both terms": lambda **given: bound(**given, row_weight=True),
            "absolute value of K in the first term": lambda **given: bound(**given, unsigned=True),
            "no bootstrapping": lambda **given: bound(**given, bootstrap=False),
            "K_ji for K_ij": lambda **given: bound(**given, flipped=True),
        },
    ),
    "eq-row-dominance": Equation(
        printed=dominated,
        package=lambda update: contraction.row_dominance(update.kernel, update.weights, gamma=update.mdp.gamma) > 0,
        cases=dominant_cases,
        # a table in which the second pair is never drawn: 0 < 0 is false
        closed=({"update": anywhere(np.eye(2), [1.0, 0.0], gamma=0.5)}, np.array([True, False])),
        wrong={
            "<= for <": lambda **given: dominated(**given, strict=False),
            "rho_i for rho_j": lambda **given: dominated(**given, row_weight=True),
            "no absolute value": lambda **given: dominated(**given, unsigned=False),
            "1 + gamma and 1 - gamma exchanged": lambda **given: dominated(**given, swapped=True),
            "no gamma": lambda **given: dominated(**given, ratio=False),
        },
    ),
    "eq-certified-modulus": Equation(
        printed=certified,
        package=package_bound,
        cases=certified_cases,
        # the safe pair: margins 0.1 * 0.5 - 1.9 * 0.04 * 0.5 = 0.012
        closed=({"update": anywhere(np.array([[1.0, 0.04], [0.04, 1.0]]), [0.5, 0.5], gamma=0.9)}, 0.988),
        wrong={
            "max for min": lambda **given: certified(**given, largest=True),
            "no alpha": lambda **given: certified(**given, rate=False),
            "rho_i for rho_j": lambda **given: certified(**given, row_weight=True),
            "no gamma": lambda **given: certified(**given, ratio=False),
        },
    ),
    "eq-one-row": Equation(
        printed=split_row,
        package=package_bound,
        cases=long_steps,
        closed=({"update": TRAP}, 1.084),
        wrong={
            "its own bootstrap forgotten": lambda **given: split_row(**given, own_bootstrap=False),
            "1 - gamma for the others": lambda **given: split_row(**given, plus=-1.0),
            "1 - x without absolute value": lambda **given: split_row(**given, dropped=True),
        },
    ),
    "eq-some-step": Equation(
        printed=dominated_pieces,
        package=lambda update: contraction.max_step_size(update) > 0,
        cases=lambda rng: step_cases(rng, inside=False),
        closed=({"update": STUCK}, False),  # 0 > 0 is false
        wrong={
            ">= for >": lambda **given: dominated_pieces(**given, strict=False),
            "no absolute value": lambda **given: dominated_pieces(**given, unsigned=False),
            "absolute value of the diagonal, too": lambda **given: dominated_pieces(**given, positive=False),
            "one policy only": lambda **given: dominated_pieces(**given, one_policy=True),
            "no gamma": lambda **given: dominated_pieces(**given, discount=False),
            "rho_i for rho_j": lambda **given: dominated_pieces(**given, row_weight=True),
        },
    ),
    "eq-largest-step": Equation(
        printed=largest_step,
        package=contraction.max_step_size,
        cases=lambda rng: step_cases(rng, inside=True),
        closed=({"update": ALONE}, 4 / 3),
        wrong={
            "1 for 2": lambda **given: largest_step(**given, factor=1.0),
            "min for max": lambda **given: largest_step(**given, over=min),
            "the diagonal alone": lambda **given: largest_step(**given, diagonal=True),
            "column sums": lambda **given: largest_step(**given, columns=True),
            "no gamma": lambda **given: largest_step(**given, discount=False),
            "rho_i for rho_j": lambda **given: largest_step(**given, row_weight=True),
        },
    ),
    "eq-on-features": Equation(
        printed=on_features,
        package=package_on_features,
        cases=features_cases,
        closed=(
            {
                "update": replace(LINE.update, alpha=0.1),
                "phi": np.reshape(LINE.features, (2, 1)),
                "policy": np.zeros(2, dtype=int),
            },
            np.array([[0.98]]),
        ),
        wrong={
            "plus for minus": lambda **given: on_features(**given, sign=1.0),
            "no shares": lambda **given: on_features(**given, shares=False),
            "the shares twice": lambda **given: on_features(**given, square=True),
            "no gamma": lambda **given: on_features(**given, discount=False),
        },
    ),
    "eq-weighted-modulus": Equation(
        printed=weighted,
        package=lambda update, w: norms.weighted_modulus(update)[0],
        cases=weighted_cases,
        closed=({"update": examples.sup_norm_only().update, "w": np.ones(2)}, 0.975),
        wrong={
            "w_i and w_j exchanged": lambda **given: weighted(**given, flipped=True),
            "no weights": lambda **given: weighted(**given, unweighted=True),
            "one policy only": lambda **given: weighted(**given, first_only=True),
        },
    ),
    "eq-product-bound": Equation(
        printed=product,
        package=package_product,
        cases=lambda rng: [
            {"gamma": rng.uniform(0.1, 0.9), "alphas": rng.uniform(0.1, 1, size=5), "start": rng.uniform(1, 3)}
            for _ in range(4)
        ],
        closed=({"gamma": 0.5, "alphas": [1.0, 0.5], "start": 8.0}, 3.0),
        wrong={
            "a factor missing": lambda **given: product(**given, skip=1),
            "sum for product": lambda **given: product(**given, total=True),
            "the last factor to the power k": lambda **given: product(**given, power=True),
        },
    ),
    "eq-rest": Equation(
        printed=expected_step,
        package=package_expected_step,
        cases=lambda rng: [
            {
                "mdp": random_mdp(3, 2, gamma=0.8, branching=2, rng=rng),
                "features": rng.standard_normal((6, 2)),
                "theta": rng.standard_normal(2),
                "weights": rng.dirichlet(np.ones(6)),
            }
            for _ in range(5)
        ],
        closed=(
            {
                "mdp": examples.no_fixed_point().update.mdp,
                "features": examples.no_fixed_point().features,
                "theta": np.array([-3.0]),
                "weights": examples.no_fixed_point().update.weights,
            },
            [1 + 2 * 0.9 * 3 + 3],
        ),
        wrong={
            "no weights": lambda **given: expected_step(**given, weighted=False),
            "mean for max": lambda **given: expected_step(**given, best=np.mean),
            "no gamma": lambda **given: expected_step(**given, discounted=False),
            "uphill": lambda **given: expected_step(**given, sign=-1),
        },
    ),
    "eq-tracking": Equation(
        printed=lambda beta, distance: (1 + beta) / (1 - beta) * distance,
        package=lambda beta, distance: norms.tracking_bound(beta, spread=distance),
        cases=lambda rng: [{"beta": rng.uniform(0.1, 0.95), "distance": rng.uniform(0.1, 2)} for _ in range(5)],
        closed=({"beta": 0.5, "distance": 1.0}, 3.0),
        wrong={
            "1 for 1 + beta": lambda beta, distance: distance / (1 - beta),
            "beta for 1 + beta": lambda beta, distance: beta * distance / (1 - beta),
            "upside down": lambda beta, distance: (1 - beta) / (1 + beta) * distance,
        },
    ),
    "eq-lag": Equation(
        printed=lambda beta, distance: distance / (1 - beta),
        package=lambda beta, distance: norms.lag_bound(beta, drift=distance),
        cases=lambda rng: [{"beta": rng.uniform(0.1, 0.95), "distance": rng.uniform(0.1, 2)} for _ in range(5)],
        closed=({"beta": 0.8, "distance": 0.1}, 0.5),
        wrong={
            "beta above": lambda beta, distance: beta * distance / (1 - beta),
            "1 + beta above": lambda beta, distance: (1 + beta) * distance / (1 - beta),
            "product": lambda beta, distance: distance * (1 - beta),
        },
    ),
    "eq-u2-modulus": Equation(
        printed=lambda gamma, alpha, weights: 1 - alpha * (1 - gamma) * min(weights),
        package=table_modulus,
        cases=lambda rng: [
            {"gamma": rng.uniform(0.1, 0.95), "alpha": rng.uniform(0.1, 1), "weights": rng.dirichlet(np.ones(4))}
            for _ in range(5)
        ],
        closed=({"gamma": 0.5, "alpha": 1.0, "weights": np.array([0.75, 0.25])}, 0.875),
        wrong={
            "max for min": lambda gamma, alpha, weights: 1 - alpha * (1 - gamma) * max(weights),
            "no share": lambda gamma, alpha, weights: 1 - alpha * (1 - gamma),
            "no gamma": lambda gamma, alpha, weights: 1 - alpha * min(weights),
            "no alpha": lambda gamma, alpha, weights: 1 - (1 - gamma) * min(weights),
        },
    ),
}
