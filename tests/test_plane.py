"""The plane of Q that a reader touches: the script computes what the package does, and the controls what they say."""

import functools
import gzip
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from divergence_notes import bellman, contraction, dynamics, examples, networks, ntk, updates, widgets
from divergence_notes.mdp import FiniteMDP
from tests import page_checks
from tests.browser import browser, look, opened, served  # noqa: F401
from tests.waiting import PATIENCE

HOME = Path(widgets.__file__).parent
SCRIPT = (HOME / "plane.js").read_text(encoding="utf-8")
RULE = {"max_iter": 200, "tol": 1e-6, "bound": 1e3}
INSTANCES = 200
FAULTS = {
    "transposed kernel": (
        "(row) => row.map((entry, j) => entry * (alpha",
        "(row, i) => row.map((_, j) => kernel[j][i] * (alpha",
    ),
    "rho_i for rho_j": ("alpha * rho[j]", "alpha * rho[0]"),
    "no gamma": ("R[1] + gamma * (p1", "R[1] + (p1"),
    "no max": ("a * x + b * y : Math.max(x, y)", "a * x + b * y : x"),
    "the second on a tie": ("y > x ? 1 : 0", "y >= x ? 1 : 0"),
    "a spill the other way": ("kernel[1 - j][j]) / kernel[j][j]", "kernel[j][j]) / kernel[1 - j][j]"),
    "< for <=": ("step <= tol", "step < tol * 0.5 + 0 * tol"),
    "a bound that is not reached": ("!(size <= bound)", "!(size <= 2 * bound)"),
    "converged before diverged": ("* Math.max(1, size) ?", "* size ?"),
    "the smallest of the values": ("Math.max(...solved", "Math.min(...solved"),
    "columns for rows": ("(row[0] * loop[0][j] + row[1] * loop[1][j])", "(row[0] * loop[j][0] + row[1] * loop[j][1])"),
    "rows upside down": ("[at(column), at(row)]", "[at(row), at(column)]"),
    "a kernel without its bias": ("dot(one.h, other.h) + 1 + dot(", "dot(one.h, other.h) + dot("),
    "a hidden bias that stays": ("next.b[k] += pull * turn[k];", ""),
    "a bound without the discount": ("+ problem.gamma * Math.abs(pull)", "+ Math.abs(pull)"),
    "a bound with signs": ("Math.abs((i === j ? 1 : 0) - pull) +", "((i === j ? 1 : 0) - pull) +"),
    "the exact modulus for the bound": (
        "const rowSumBound = (problem) =>\n    Math.max(...matrix",
        "const rowSumBound = (problem) => modulus(problem) ||\n    Math.max(...matrix",
    ),
    "a start that is missed": ("net.c += first + second", "net.c += first - second"),
}


@pytest.fixture(scope="module")
def page(browser):  # noqa: F811
    """Open an empty page."""
    page = browser.new_page()
    yield page
    page.close()


@functools.cache
def cases(seed=0, count=INSTANCES):
    """Return random problems with two pairs: both shapes, ends of episodes, kernels, matrices, policies, batches."""
    rng, made = np.random.default_rng(seed), []
    for k in range(count):
        states = 1 + k % 2
        P = rng.dirichlet(np.ones(states + 1), size=(states, 3 - states))[..., :states]  # the rest ends the episode
        mdp = FiniteMDP(P, rng.standard_normal((states, 3 - states)), float(rng.uniform(0, 0.98)))
        policy = rng.dirichlet(np.ones(3 - states), size=states) if k % 5 == 4 else None
        alpha, share = float(10 ** rng.uniform(-1.5, 0.5)), rng.uniform()
        kernel = rng.standard_normal((2, 2)) * 2 + np.diag([2, 2])
        update = updates.KernelUpdate(mdp, kernel=kernel, weights=[share, 1 - share], alpha=alpha, policy=policy)
        if k % 3 == 2:
            update = updates.Update(mdp, update.matrix, policy)
        start = rng.standard_normal(2) * 3
        made.append((update, np.full(2, start[0]) if k % 7 == 6 else start))  # the two actions tie
    return made


def told(update, start, **more):
    """Return a problem as the script is told it."""
    return widgets._told(update, start, None) | more


def row_sum_bound(update):
    """Return the paper's bound; without a kernel, that of the update with the same matrix and shares of one half."""
    gamma = update.mdp.gamma
    if isinstance(update, updates.KernelUpdate):
        return contraction.row_sum_bound(update.kernel, update.weights, alpha=update.alpha, gamma=gamma)
    return contraction.row_sum_bound(2 * update.matrix, [0.5, 0.5], alpha=1, gamma=gamma)


STEP = "(() => { const out = [0, 0]; plane.stepper(p)(...p.start, out); return out; })()"
RUN = "plane.iterate(p, p.start, p.rule)"


def exact(update):
    """Return the modulus in the sup norm, piece by piece."""
    return max(np.abs(update.jacobian(pi)).sum(axis=1).max() for pi in update.policies())


def of_updates():
    """Yield what is compared on random updates: name, expression, problems, what the package says, how near."""
    made = cases()
    problems = [told(*case) for case in made]
    tables = [start.reshape(update.mdp.R.shape) for update, start in made]
    updated = [update for update, _ in made]
    yield "step", STEP, problems, [u(Q).ravel() for u, Q in zip(updated, tables, strict=True)], 1e-12
    stars = [
        (bellman.policy_iteration(u.mdp).Q if u.policy is None else bellman.policy_value(u.mdp, u.policy)).ravel()
        for u in updated
    ]
    yield "target", "plane.target(p)", problems, stars, 1e-9
    moduli = [exact(u) for u in updated]
    yield "modulus", "plane.modulus(p)", problems, moduli, 1e-12
    bounds = [row_sum_bound(u) for u in updated]
    assert (
        sum(b > L + 0.01 for b, L in zip(bounds, moduli, strict=True)) > INSTANCES / 4
    )  # else the two are not told apart
    yield "bound", "plane.rowSumBound(p)", problems, bounds, 1e-12
    choices = [bellman.greedy_policy(Q).tolist() for Q in tables]
    yield "greedy", "plane.greedy(p, p.start).slice(0, 2 / p.actions)", problems, choices, 0
    undone = [
        (p | {"batch": list(batch)}, updates.Update.preconditioned(u.mdp, kernel=u.kernel, batch=batch, alpha=u.alpha))
        for k, (p, u) in enumerate(zip(problems, updated, strict=True))
        for batch in [((0, 1), (0,), (1,))[k % 5 % 3]]
        if "kernel" in p
    ]
    yield "undone", "plane.matrix(p)", [p for p, _ in undone], [u.matrix for _, u in undone], 1e-12
    runs = [dynamics.iterate(u, Q, **RULE) for u, Q in zip(updated, tables, strict=True)]
    ruled = [p | {"rule": RULE} for p in problems]
    yield "status", f"{RUN}.status", ruled, [run.status for run in runs], 0
    yield "length", f"{RUN}.values.length", ruled, [len(run.values) for run in runs], 0
    yield "end", f"{RUN}.values.at(-1)", ruled, [run.values[-1].ravel() for run in runs], 1e-7  # rounding grows


def of_the_pair():
    """Yield the starts of a grid, by what becomes of them."""
    update, middles = replace(examples.full_data_divergence().update, alpha=0.8), np.linspace(-2, 4, 17)[1::2]
    rule = RULE | {"tol": 1e-3}
    fates = [[dynamics.iterate(update, [[x, y]], **rule).status for x in middles] for y in middles]
    assert {"converged", "diverged"} <= {fate for row in fates for fate in row}
    yield "basin", "plane.basin(p, [-2, 4], 8, p.rule)", [told(update, (1, 0)) | {"rule": rule}], [fates], 0


def of_networks():
    """Yield kernel, step and prediction of small networks."""
    update = replace(examples.full_data_divergence().update, alpha=0.7)
    for kind in networks.ACTIVATIONS:
        net = networks.MLP([3, 5, 1], activation=kind, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x = torch.tensor([[0.3, -1.0, 0.5], [1.2, 0.4, -0.6]], dtype=torch.float64)
        start = networks.values(net, x)
        problem = told(update, start) | {"network": widgets._layers(net, x)}
        K = ntk.gram(net, x).numpy()
        yield "kernel of a network", "plane.networkKernel(p.network)", [problem], [K], 1e-12
        backup = bellman.optimality_backup(start[None], update.mdp).ravel()
        moved = networks.semi_gradient_step(net, x, backup, weights=[0.2, 0.8], alpha=0.7)
        yield "step of a network", STEP, [problem], [networks.values(moved, x)], 1e-12
        change = updates.predicted_change(K, update.weights, backup - start, alpha=0.7)
        yield "prediction", "plane.arrows(p, ...p.start).predicted", [problem], [start + change], 1e-12
        placed = "plane.forward(plane.placed(p.network, ...p.start)).map(({ q }) => q)"
        elsewhere = problem | {"start": [2.0, -1.0]}
        yield "start of a network", placed, [elsewhere], [np.array([2.0, -1.0])], 1e-12


@pytest.fixture(scope="module")
def comparisons():
    """Return all that is compared."""
    return [*of_updates(), *of_the_pair(), *of_networks()]


def same(one, other, near):
    """Say whether two values are the same: words and lists of words to the letter, numbers as near as is asked."""
    if near == 0:
        return one == other
    return np.allclose(np.array(one, dtype=float), other, rtol=near, atol=near)


def disagreements(page, source, comparisons):
    """Return what the script computes otherwise than the package, by name."""
    asks = ", ".join(f"given[{k}].map((p) => {expression})" for k, (_, expression, *_) in enumerate(comparisons))
    call = f"(given) => {{ {source}; const plane = divergenceNotesPlane; return [{asks}]; }}"
    said = page.evaluate(call, [problems for _, _, problems, *_ in comparisons])
    return {
        name
        for got, (name, _, _, expected, near) in zip(said, comparisons, strict=True)
        if not all(same(one, other, near) for one, other in zip(got, expected, strict=True))
    }


class TestAgreement:
    """The script says what the package says, to 1e-12 for a step, on random problems; and planted faults are found."""

    def test_nothing_differs(self, page, comparisons):
        assert disagreements(page, SCRIPT, comparisons) == set()

    def test_every_kind_is_among_the_instances(self):
        made = cases()
        statuses = {dynamics.iterate(u, q.reshape(u.mdp.R.shape), **RULE).status for u, q in made}
        assert statuses == set(dynamics.STATUSES)
        assert {u.mdp.R.shape for u, _ in made} == {(1, 2), (2, 1)}
        assert {u.policy is None for u, _ in made if u.mdp.n_actions == 2} == {True, False}

    @pytest.mark.parametrize("fault", FAULTS)
    def test_planted(self, page, comparisons, fault):
        right, wrong = FAULTS[fault]
        assert SCRIPT.count(right) == 1
        assert disagreements(page, SCRIPT.replace(right, wrong), comparisons)


class TestRoundOrMoving:
    """Of an undecided run is said that it goes round when its second half came back to where it began, after a trip."""

    @pytest.fixture
    def goes_round(self, page):
        call = f"(values) => {{ {SCRIPT}; return divergenceNotesPlane.goesRound({{ values, status: 'undecided' }}); }}"
        return lambda values: page.evaluate(call, np.asarray(values, dtype=float).tolist())

    def turned(self, angle, factor, count=400):
        turns = factor ** np.arange(count) * np.exp(1j * angle * np.arange(count))
        return np.stack([turns.real, turns.imag], axis=1)

    def test_round(self, goes_round):
        orbit = examples.closed_orbit()
        run = dynamics.iterate(orbit.update, orbit.Q0, max_iter=4000)
        assert run.status == "undecided" and goes_round(run.values.reshape(-1, 2))
        assert goes_round(self.turned(0.1, 1))
        assert goes_round(self.turned(np.pi, 1))  # to and fro
        assert goes_round(self.turned(1.0, 1.0))  # never the same point twice

    def test_moving(self, goes_round):
        assert not goes_round(self.turned(0.1, 0.99))
        assert not goes_round(self.turned(0.1, 1.01))
        assert not goes_round(self.turned(0, 0.999))
        assert not goes_round(self.turned(0.001, 1))  # a fraction of a turn
        assert not goes_round([[1, 2]] * 9)


CALM, ORBIT, PAIR = examples.sup_norm_only(), examples.closed_orbit(), examples.full_data_divergence()
STYLES = [HOME.parent / "book" / "_static" / "book.css", HOME / "plane.css"]


def written(folder, name, *planes):
    """Write a page with these planes, as the book has them."""
    for path in (*STYLES, HOME / "plane.js"):
        shutil.copy(path, folder)
    links = "".join(f'<link rel="stylesheet" href="{path.name}">' for path in STYLES)
    links += '<link rel="icon" href="data:,">'
    script = '<script src="plane.js" defer></script>'
    shown = "".join(plane._repr_mimebundle_()["text/html"] for plane in planes)
    (folder / name).write_text(
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Planes</title>{links}'
        f"{script}<style>body {{ background: var(--pst-color-background); color: var(--pst-color-text-base) }}</style>"
        f'</head><body><main class="bd-content"><h1>Planes</h1>{shown}</main></body></html>',
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    """Return a folder with a page of four planes: three problems, a box, undone, a network."""
    net = networks.MLP([2, 4, 1], activation="tanh", generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = [
        widgets.plane(PAIR, ORBIT, CALM, limits=[(-2, 4), (-3, 6), (-2, 2)]),
        widgets.plane(updates.Update.table(ORBIT.update.mdp, alpha=1), starts=[(5, 4)], limits=[(-3, 6)], box=True),
        widgets.plane(PAIR, limits=[(-2, 4)], undo=True),
        widgets.plane(PAIR, limits=[(-2, 4)], network=(net, torch.eye(2, dtype=torch.float64)), sliders=["alpha"]),
    ]
    return written(tmp_path_factory.mktemp("planes"), "planes.html", *made)


@pytest.fixture(scope="module")
def visit(browser, planes):  # noqa: F811
    """Open the planes once, for a reader who wants no motion."""
    with served(planes) as address, opened(browser, f"{address}/planes.html", address) as visit:
        yield visit


@pytest.fixture
def alive(visit):
    """Return the page with every plane as in the book; no test leaves a complaint behind."""
    page, complaints = visit
    look(page, "light", 1280)
    for place in range(4):
        plane = page.locator(".dn-plane").nth(place)
        for menu in plane.get_by_label("the problem").all():
            menu.select_option("0")
        plane.get_by_role("button", name="As in the book").click()
    yield page
    assert complaints == []


def said(plane):
    """Return what a plane says of its path."""
    return plane.locator(".dn-words").inner_text()


def slid(page, plane, name, key, times):
    """Press a key on a slider, and wait until the page has drawn."""
    plane.get_by_label(name).focus()
    for _ in range(times):
        page.keyboard.press(key)
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


class TestTouch:
    """What a reader does to a plane, by mouse and by keys, and what it says to it."""

    @pytest.mark.parametrize("start", [(1, 0), (0, 1), (-1.4, 0.2), (3, -1.5)])
    def test_it_says_what_the_package_says(self, alive, start):
        plane = alive.locator(".dn-plane").first
        for name, value in zip(("Start, Q₁", "Start, Q₂"), start, strict=True):
            plane.get_by_label(name).fill(str(value))
            plane.get_by_label(name).press("Enter")
        run = dynamics.iterate(PAIR.update, [start], max_iter=4000, tol=1e-6, bound=1e3)
        found = re.search(r"(converged|diverged|undecided)\D*?(?:beyond 1000 after )?(\d+) updates", said(plane))
        assert found.groups() == (run.status, str(len(run.values) - 1))

    def test_a_click_sets_the_start(self, alive):
        plane = alive.locator(".dn-plane").first
        plane.scroll_into_view_if_needed()
        box = plane.locator(".dn-stage").bounding_box()
        before = plane.locator(".dn-path path").get_attribute("d")
        alive.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        assert plane.locator(".dn-path path").first.get_attribute("d") != before
        assert "From (1.00" not in said(plane)

    def test_a_drag_moves_it_along(self, alive):
        plane = alive.locator(".dn-plane").first
        plane.scroll_into_view_if_needed()
        ring = plane.locator(".dn-start").bounding_box()
        alive.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
        alive.mouse.down()
        fates = []
        for place in (0, 40, 80, 120):
            alive.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2 - place)
            fates.append(re.search("converged|diverged", said(plane))[0])
        alive.mouse.up()
        assert fates[0] == "diverged" and fates[-1] == "converged"

    def test_keys_move_the_start(self, alive):
        plane = alive.locator(".dn-plane").first
        ring = plane.locator(".dn-start")
        assert ring.get_attribute("aria-label").startswith("Start at (1.00, 0.00)")
        for key, label in (
            ("ArrowUp", "(1.00, 0.15)"),
            ("Shift+ArrowLeft", "(0.25, 0.15)"),
            ("ArrowDown", "(0.25, 0.00)"),
        ):
            ring.press(key)
            assert label in ring.get_attribute("aria-label")
        assert said(plane).startswith("From (0.25, 0.00)")

    def test_one_update_after_the_other(self, alive):
        plane = alive.locator(".dn-plane").first
        plane.get_by_role("button", name="To the start").click()
        first, second = PAIR.update([[1.0, 0.0]]).ravel()
        assert plane.locator(".dn-count").inner_text().startswith("update 0 of ")
        plane.get_by_role("button", name="One update").press("Enter")
        assert f"After 1 update from (1.00, 0.00): ({first:.2f}, {second:.2f})" in said(plane)
        assert "The greedy action is the first." in said(plane)

    def test_without_motion_it_is_there_at_once(self, alive):
        plane = alive.locator(".dn-plane").first
        plane.get_by_role("button", name="To the start").click()
        plane.get_by_role("button", name="Play").click()
        shown, whole = re.findall(r"\d+", plane.locator(".dn-count").inner_text())
        assert shown == whole and "diverged" in said(plane)

    def test_sliders_change_the_update(self, alive):
        plane = alive.locator(".dn-plane").first
        slid(alive, plane, "K₁₂", "ArrowLeft", 40)  # 2.5 - 40 * 0.05
        update = replace(PAIR.update, kernel=[[9, 0.5], [0.5, 1]])
        assert dynamics.iterate(update, PAIR.Q0, max_iter=4000, tol=1e-6, bound=1e3).status == "converged"
        assert "converged" in said(plane) and "100 % converge" in said(plane)
        assert plane.get_by_label("K₁₂").get_attribute("aria-valuetext") == "0.5"
        plane.get_by_role("button", name="As in the book").click()
        assert "diverged" in said(plane)

    def test_every_slider_draws_anew(self, alive):
        plane = alive.locator(".dn-plane").first
        for name in ("α", "ρ₁", "K₁₂", "γ"):
            before = plane.locator(".dn-flow").inner_html()
            slid(alive, plane, name, "ArrowLeft", 20)
            assert plane.locator(".dn-flow").inner_html() != before or name == "α"  # of which only the pace depends

    def test_round_and_moving(self, alive):
        plane = alive.locator(".dn-plane").first
        plane.get_by_label("the problem").select_option("1")
        assert "undecided after 4000 updates: it goes round" in said(plane)
        plane.get_by_label("the problem").select_option("2")
        slid(alive, plane, "α", "Home", 1)
        plane.get_by_label("γ").press("End")
        slid(alive, plane, "γ", "End", 1)
        assert "undecided after 4000 updates: it is still moving" in said(plane)

    def test_the_box(self, alive):
        plane = alive.locator(".dn-plane").nth(1)
        assert "lie inside it: the dotted square round them is 0.500 times as wide, and no smaller one" in said(plane)

    def test_the_dotted_square_is_the_bound(self, visit):
        """Drawn and said: the dotted square is the row-sum bound, the thin one the exact modulus, where they differ."""
        page, complaints = visit
        apart = [case for case in cases(seed=5) if 1.2 * exact(case[0]) < row_sum_bound(case[0]) < 8][:12]
        assert len(apart) == 12
        for update, start in apart:
            star = page.evaluate("(p) => divergenceNotesPlane.target(p)", told(update, start))
            reach = 1.05 * row_sum_bound(update) * np.abs(start - star).max()
            view = [(min(star) - reach, max(star) + reach)]
            plane = widgets.plane(update, starts=[start], limits=view, sliders=[], shade=False, box=True)
            page.evaluate(
                "(html) => { const one = document.createElement('div'); one.id = 'one'; one.innerHTML = html;"
                " document.body.append(one); divergenceNotesPlane.mountAll(one); }",
                plane._repr_html_(),
            )
            one = page.locator("#one")
            width = {
                name: one.locator(f".dn-{name}").evaluate("(path) => path.getBBox().width")
                for name in ("unit", "tight", "bound")
            }
            words = one.locator(".dn-words").inner_text()
            one.evaluate("(one) => one.remove()")
            expected = row_sum_bound(update), exact(update)
            drawn = width["bound"] / width["unit"], width["tight"] / width["unit"]
            assert drawn == pytest.approx(expected, rel=0.03)
            apart_in_words = r"exact modulus, is (\S+) times as wide, the dotted one, the row-sum bound, (\S+) times\."
            spoken = [float(number) for number in re.search(apart_in_words, words).groups()]
            assert spoken[::-1] == pytest.approx(expected, abs=6e-4)
        assert complaints == []

    def test_undone(self, alive):
        plane = alive.locator(".dn-plane").nth(2)
        assert re.search("converged.*as it is: diverged", said(plane))
        plane.get_by_label("the kernel").select_option("second")
        slid(alive, plane, "γ", "ArrowLeft", 0)
        undone = updates.Update.preconditioned(PAIR.update.mdp, kernel=PAIR.update.kernel, batch=[1], alpha=0.1)
        run = dynamics.iterate(undone, PAIR.Q0, max_iter=4000, tol=1e-6, bound=1e3)
        assert re.match(rf"From \(1.00, 0.00\): {run.status}", said(plane))

    def test_half_the_step_a_quarter_of_the_error(self, alive):
        plane = alive.locator(".dn-plane").nth(3)
        whole, half = map(
            float, re.search(r"off by (\S+); at half the step size off by (\S+)\.$", said(plane)).groups()
        )
        assert 3.3 < whole / half < 4.7
        assert plane.locator(".dn-arrows path").count() == 2

    def test_axe_finds_nothing(self, alive):
        assert page_checks.violations(alive, (("light", 1280), ("dark", 360))) == []

    def test_fits_a_phone(self, alive):
        assert page_checks.too_wide(alive) == []

    def test_no_control_sticks_out_of_a_column(self, alive):
        alive.set_viewport_size({"width": 704, "height": 900})  # the text of a wide page
        out = alive.evaluate("""() => [...document.querySelectorAll(".dn-plane")].flatMap((plane) => {
            const edge = plane.getBoundingClientRect().right + 1;
            const controls = [...plane.querySelectorAll("button, input, output, select")];
            return controls.filter((each) => each.getBoundingClientRect().right > edge).map((each) => each.outerHTML);
        })""")
        assert out == []


class TestOtherReaders:
    """With motion the path runs and can be stopped; without scripts there is a figure; in JupyterLab it is a widget."""

    def test_it_runs_and_pauses(self, browser, planes):  # noqa: F811
        page = browser.new_page(reduced_motion="no-preference")
        page.set_default_timeout(1000 * PATIENCE)
        page.goto((planes / "planes.html").as_uri())
        plane = page.locator(".dn-plane").first
        plane.get_by_role("button", name="To the start").click()
        plane.get_by_role("button", name="Play").click()
        page.wait_for_function("() => !document.querySelector('.dn-count').textContent.startsWith('update 0 ')")
        plane.get_by_role("button", name="Pause").click()
        at, whole = map(int, re.findall(r"\d+", plane.locator(".dn-count").inner_text()))
        assert 0 < at < whole and said(plane).startswith(f"After {at} update")
        plane.get_by_role("button", name="Play").click()
        page.wait_for_function("() => /diverged/.test(document.querySelector('.dn-words').textContent)")
        page.close()

    def test_from_the_disk(self, browser, planes):  # noqa: F811
        with opened(browser, (planes / "planes.html").as_uri(), "file:") as (page, complaints):
            assert "diverged" in said(page.locator(".dn-plane").first)
            assert complaints == []

    def test_without_scripts(self, browser, planes):  # noqa: F811
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto((planes / "planes.html").as_uri())
        picture = page.get_by_role("img").first
        assert picture.is_visible()
        for name, status in (("the pair", "diverged"), ("the orbit", "undecided"), ("the calm", "converged")):
            assert re.search(rf"{name}, from \(\S+ \S+\): {status}", picture.get_attribute("aria-label"))
        assert page.locator(".dn-plane :is(button, input)").count() == 0
        context.close()

    def test_the_widget_is_the_same(self, page, alive):
        made = widgets.plane(PAIR, ORBIT, CALM, limits=[(-2, 4), (-3, 6), (-2, 2)])
        widget, page = made.widget, page
        shown = page.evaluate(
            """async ([code, spec]) => {
                const file = new Blob([code], { type: "text/javascript" });
                const { default: { render } } = await import(URL.createObjectURL(file));
                document.body.replaceChildren();
                render({ model: { get: (name) => ({ spec })[name] }, el: document.body });
                return document.querySelector(".dn-words").textContent;
            }""",
            [widget._esm, widget.spec],
        )
        assert shown.strip() == said(alive.locator(".dn-plane").first).strip()
        bundle = made._repr_mimebundle_()
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
        assert "text/html" in bundle

    def test_what_a_cell_shows_anew_comes_to_life(self, alive):
        shown = alive.evaluate(
            """(html) => {
                const place = document.querySelector("main").appendChild(document.createElement("div"));
                place.innerHTML = html;
                divergenceNotesPlane.mountAll(place);
                const words = place.querySelector(".dn-words").textContent;
                place.remove();
                return words;
            }""",
            widgets.plane(CALM, limits=[(-2, 2)])._repr_html_(),
        )
        assert shown.startswith("From (1.00, −0.40): converged")

    def test_without_anywidget_it_is_a_page(self, monkeypatch):
        made = widgets.plane(CALM)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert set(made._repr_mimebundle_()) == {"text/plain", "text/html"}
        monkeypatch.setitem(sys.modules, "anywidget", None)
        widgets._plane_widget.cache_clear()
        with pytest.raises(ImportError, match=re.escape("pip install 'divergence-notes[widgets]'")):
            made.widget  # noqa: B018


class TestRefusals:
    """What is no plane is said by name."""

    @pytest.mark.parametrize(
        ("problems", "given", "message"),
        [
            ([], {}, "problems must name at least one"),
            ([examples.self_loop()], {}, "problems must have 2 pairs of state and action, the loop has 1"),
            ([CALM.update], {}, "starts must be given for an update that is no example"),
            ([CALM], {"limits": [(1, 1)]}, "limits must increase, got (1, 1)"),
            ([CALM], {"starts": [(0, 1), (1, 1)]}, "starts must have one entry for each of 1 problems, got 2"),
            ([CALM], {"sliders": ["beta"]}, "sliders must be one of 'alpha', 'share', 'coupling', 'gamma', got 'beta'"),
            (
                [updates.Update.table(CALM.update.mdp, alpha=1)],
                {"starts": [(0, 1)], "undo": True},
                "undo must be False for an update without a kernel",
            ),
        ],
    )
    def test_refuses(self, problems, given, message):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            widgets.plane(*problems, **given)

    def test_a_network_with_two_hidden_layers(self):
        net = networks.MLP([2, 3, 3, 1], activation="relu", generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match="network must have one hidden layer and one output"):
            widgets.plane(PAIR, network=(net, torch.eye(2)))


def test_the_script_is_small():
    """What the first page loads for its plane, packed."""
    assert sum(len(gzip.compress((HOME / name).read_bytes(), 9)) for name in ("plane.js", "plane.css")) < 13_000
