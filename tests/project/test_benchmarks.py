"""The benchmarks: what was recorded, how it is judged and written, and that our side of it runs. Nothing is timed."""

import itertools
import json
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks import measure, run
from tests.pages import ROOT

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
PEERS = {"divergence_notes", "torch.func", "nngeometry", "asdl", "limit"}
TD3 = "stable-baselines3, TD3"
WIDTHS = ("256-256", "400-300")
AGENTS = ("", ", sine", ", policy every second", ", sine, policy every second")
PARTS = {"replay.sample", "ntk.linearize", "targets", "gram", "preqn.solve", "pull_back", "preqn.line_search", "policy"}
SOLVERS = {"divergence_notes", "minimum norm, eigh", "torch.linalg.lstsq, gelsd"}


def made_up(ours=2.0, theirs=50.0):
    """Return rows of one comparison."""
    rows = [
        {"what": "gram", "case": "n = 1024", "method": "divergence_notes", "ms": ours, "mb": 10.0, "repeats": 3},
        {"what": "gram", "case": "n = 1024", "method": "torch.func", "ms": theirs, "mb": 400.0, "repeats": 2},
    ]
    return [row | {"run": "torch", "difference": 1e-7} for row in rows]


def made_up_update(ours, theirs=10.0, case="256-256"):
    """Return rows of one update, CPU time only."""
    return [
        {"what": "update", "case": case, "method": run.OURS, "ms": ours, "repeats": 3, "trials": 1.25},
        {"what": "update", "case": case, "method": TD3, "ms": theirs, "repeats": 3},
    ]


def made_up_results(rows, **more):
    """Return results with these rows."""
    place = {"cpu": "a", "cores": 2, "ram_gib": 3, "system": "b", "python": "c"}
    return {
        "date": "2026-01-01",
        "minutes": 4,
        "machine": place,
        "versions": {".venv-bench": {"torch": "1"}},
        "left_out": [],
        "rows": rows,
        **more,
    }


class TestRecorded:
    """results.json and the page made of it."""

    def test_the_page_is_made_of_the_results(self):
        assert run.render(RESULTS) == PAGE, "benchmarks/run.py --render"

    def test_every_row_is_there(self):
        found = {(row["what"], row["case"], row["method"]) for row in RESULTS["rows"]}
        assert {("gram", f"n = {n}", method) for n in run.SIZES for method in PEERS} <= found
        assert {
            ("update", f"{k}{end}", method) for k in WIDTHS for end in AGENTS for method in (run.OURS, TD3)
        } <= found
        assert {("part of an update", k, method) for k in WIDTHS for method in PARTS} <= found
        assert {("solve", k, method) for k in WIDTHS for method in SOLVERS} <= found
        assert {what for what, *_ in found} == {what for whats in run.SECTIONS.values() for what in whats}
        for _, what, method, case, *_ in run.GOALS:
            if not (method == "neural-tangents" and RESULTS["left_out"]):
                assert (what, case, method) in found

    def test_every_time_has_its_repeats_and_every_peer_agrees(self):
        for row in RESULTS["rows"]:
            assert row["ms"] > 0
            assert row["repeats"] >= 3
            assert row.get("difference", 0) <= 2e-6
            assert row.get("error", 0) <= 1e-6

    def test_ours_is_no_further_from_the_optimum(self):
        error = {row["method"]: row["error"] for row in RESULTS["rows"] if row["what"] == "value iteration"}
        assert error["divergence_notes"] <= error["quantecon"]

    def test_jitter_costs_a_residual_and_the_minimum_norm_has_none(self):
        for case in WIDTHS:
            residual = {
                row["method"]: row["residual"]
                for row in RESULTS["rows"]
                if row["what"] == "solve" and row["case"] == case
            }
            assert residual["torch.linalg.lstsq, gelsd"] < 1e-9
            assert residual["minimum norm, eigh"] < 1e-4
            assert residual[run.OURS] < 0.1

    def test_a_missed_goal_is_named(self):
        missed, _, met = PAGE.partition("Met:\n")
        for goal, _, reached in run.judge(RESULTS["rows"]):
            assert f"- {goal};" in (met if reached else missed)

    def test_a_faster_peer_is_named(self):
        _, _, ahead = PAGE.partition("## Where a peer is faster")
        for row in RESULTS["rows"]:
            share = run.ratio(RESULTS["rows"], row, "ms")
            if row["method"] not in (run.OURS, "limit") and share is not None and share < 1:
                assert f"{row['what']}, {row['case']}: {row['method']} takes" in ahead

    def test_the_front_page_quotes_them(self):
        front = (ROOT / "README.md").read_text(encoding="utf-8")
        for n, peers in ((1024, ["torch.func"]), (4096, ["torch.func", "nngeometry", "asdl"])):
            for row in RESULTS["rows"]:
                if row["what"] == "gram" and row["case"] == f"n = {n}" and row["method"] in peers:
                    faster, less = (run.ratio(RESULTS["rows"], row, unit) for unit in ("ms", "mb"))
                    assert f"| {row['method']} | {n} | {faster:.3g} | {less:.3g} |" in front
        # Which peer is faster, and where: of the rows of the kernel this one, and no other.
        share = {(row["method"], row["case"]): run.ratio(RESULTS["rows"], row, "ms") for row in RESULTS["rows"]
                 if row["what"] == "gram" and row["method"] not in (run.OURS, "limit")}  # fmt: skip
        (ahead,) = [key for key, ratio in share.items() if ratio is not None and ratio < 1]
        said = f"neural-tangents is faster for 64 inputs, and takes {share[ahead]:.2g} of our time"
        assert ahead == ("neural-tangents", "n = 64") and said in front
        case = {"what": "update", "case": "256-256"}
        ours, theirs = (row["ms"] for row in RESULTS["rows"] if case.items() <= row.items())
        assert f"PreQN takes {ours / theirs:.3g} times as long" in front

    def test_machine_and_versions(self):
        machine = RESULTS["machine"]
        assert machine["cpu"] and machine["cores"] and machine["ram_gib"] and machine["python"] and RESULTS["date"]
        pinned = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("requirements*.txt"))
        named = {name for place in RESULTS["versions"].values() for name in place}
        assert {"torch", "nngeometry", "asdfghjkl", "quantecon", "stable-baselines3", "mujoco"} <= named
        for place in RESULTS["versions"].values():
            for name, version in place.items():
                assert f"{name}=={version.partition('+')[0]}" in pinned


class TestTableOfMeasurements:
    """Ratios are the peer's number over ours of the same run."""

    def test_ratios(self):
        head, rule, ours, theirs = ([text.strip() for text in line.split("|")] for line in run.table(made_up()))
        assert set("".join(rule)) == {"-"}
        peer, own = dict(zip(head, theirs, strict=True)), dict(zip(head, ours, strict=True))
        assert (peer["times ours"], peer["memory, times ours"], peer["repeats"]) == ("25", "40", "2")
        assert (own["times ours"], own["memory, times ours"]) == ("1", "1")

    def test_another_run_is_another_ratio(self):
        other = made_up()[1] | {"run": "elsewhere"}
        assert run.ratio(made_up(), other, "ms") is None

    @pytest.mark.parametrize(("ours", "met"), [(1.0, True), (2.0, False)])
    def test_goals(self, ours, met):
        goal, value, reached = run.judge(made_up(ours))[0]
        assert goal == "gram, torch.func, n = 1024: >= 45 times ours, CPU time"
        assert value == 50 / ours
        assert reached is met

    @pytest.mark.parametrize("case", WIDTHS)
    @pytest.mark.parametrize(("ours", "met"), [(12.0, True), (12.9, True), (13.1, False), (26.0, False)])
    def test_an_update_may_take_1_3_times_theirs(self, case, ours, met):
        rows = made_up_update(ours, case=case)
        [(goal, value, reached)] = [verdict for verdict in run.judge(rows) if f"{TD3}, {case}:" in verdict[0]]
        assert goal == f"update, {TD3}, {case}: >= 0.769 times ours, CPU time"
        assert value == 10 / ours
        assert reached is met
        missed, _, done = run.render(made_up_results(rows)).partition("Met:\n")
        assert f"- {goal}; measured {run.cell(value)}" in (done if met else missed)
        assert f"- {goal};" not in (missed if met else done)

    def test_the_sine_is_in_no_goal(self):
        assert not any(value for _, value, _ in run.judge(made_up_update(12.0, case="256-256, sine")))

    @pytest.mark.parametrize(("ms", "mb", "met"), [(490.0, 313.0, [True, True]), (510.0, 315.0, [False, False])])
    def test_a_record_has_goals_of_its_own(self, ms, mb, met):
        row = {"what": "record", "case": "CnnPolicy, 128 transitions", "method": run.OURS, "run": "torch"}
        found = [verdict for verdict in run.judge([row | {"ms": ms, "mb": mb}]) if verdict[0].startswith("record")]
        assert [(value, reached) for _, value, reached in found] == list(zip((ms, mb), met, strict=True))
        assert found[0][0].endswith("<= 500 CPU ms") and found[1][0].endswith("<= 314 MB")

    def test_a_part_has_no_ratio(self):
        part = {"what": "part of an update", "case": "256-256", "method": "gram", "ms": 1.0, "repeats": 3}
        head, _, *lines = (
            [text.strip() for text in line.split("|")] for line in run.table([*made_up_update(12.0), part])
        )
        ours, theirs, alone = (dict(zip(head, line, strict=True)) for line in lines)
        assert (ours["times ours"], theirs["times ours"], alone["times ours"]) == ("1", "0.833", "")
        assert (ours["trials"], theirs["trials"], alone["CPU ms"]) == ("1.25", "", "1")

    def test_what_was_not_measured_is_no_goal_met(self):
        assert not any(met for _, _, met in run.judge([]))


class TestOneSection:
    """One section measured alone takes the place of its own numbers and of no others."""

    OLD = made_up_results([*made_up(), {"what": "backup"}, *made_up_update(12.0), {"what": "solve"}])

    def test_sections_share_nothing(self):
        whats = [what for each in run.SECTIONS.values() for what in each]
        assert len(set(whats)) == len(whats)
        assert {what for _, what, *_ in run.GOALS} <= set(whats)
        assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in run.SECTIONS)

    def test_joined(self):
        fresh = made_up_results(
            made_up_update(11.0), date="2026-02-02", versions={".venv-bench": {"torch": "1", "x": "2"}}
        )
        both = run.joined(self.OLD, fresh, "preqn")
        assert both["rows"] == [*made_up(), {"what": "backup"}, *made_up_update(11.0)]
        assert both["versions"] == fresh["versions"]
        assert (both["date"], both["minutes"], both["again"]) == ("2026-01-01", 4, {"preqn": "2026-02-02"})
        assert "Measured again alone: preqn, 2026-02-02." in run.render(both | {"rows": made_up_update(11.0)})

    def test_the_order_is_that_of_the_sections(self):
        fresh = made_up_results(made_up(ours=3.0))
        assert run.joined(self.OLD, fresh, "gram")["rows"] == [*made_up(ours=3.0), *self.OLD["rows"][2:]]

    @pytest.mark.parametrize(
        ("change", "fit"),
        [
            ({}, True),
            ({"versions": {".venv-bench": {"torch": "1", "x": "2"}}}, True),
            ({"versions": {".venv-bench": {"torch": "2"}}}, False),
            ({"versions": {}}, False),
            ({"machine": {"cpu": "another"}}, False),
        ],
    )
    def test_another_machine_or_version_does_not_belong(self, change, fit):
        assert run.belong(self.OLD, made_up_results([], **change)) is fit


class TestMeasured:
    """Our side of every comparison runs, at a size that takes no time."""

    def test_in_turns(self):
        calls = []
        methods = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
        seconds, first = measure.in_turns(methods, {"a": 3, "b": 1})
        assert calls == ["a", "b", "a", "a"]
        assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 1}
        assert first == {"a": 1, "b": 2}

    def test_each_comes_after_each_other_equally_often(self):
        """Whoever always follows the same method always pays for what that one left in the caches."""
        calls = []
        methods = {name: lambda name=name: calls.append(name) for name in "abc"}
        measure.in_turns(methods, dict.fromkeys(methods, 6))
        rounds = [calls[k : k + 3] for k in range(0, 18, 3)]
        assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
        pairs = Counter(pair for each in rounds for pair in itertools.pairwise(each))
        assert pairs == dict.fromkeys(itertools.permutations("abc", 2), 2)
        assert Counter(each[0] for each in rounds) == dict.fromkeys("abc", 2)

    def test_peak_is_over_the_start(self):
        """Of a process of its own, whatever the one that started it holds."""
        held = bytearray(600_000_000)
        code = "from benchmarks import measure; print(measure.peak_mb(lambda: bytearray(400_000_000)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        del held
        assert 200 < float(done.stdout) < 450

    def test_gram(self):
        import torch

        from benchmarks import gram

        net, x = gram.network((23, 8, 8, 1)), gram.inputs(6)
        torch.testing.assert_close(gram.ours(net, x), gram.jacobian(net, x), rtol=0, atol=1e-5)

    def test_record(self):
        import torch

        from benchmarks import record

        learner = record.model((4, 36, 36))
        given, looking = record.batch(learner, 6), record.watching(learner)
        record.record(looking, given)
        K = record.by_rows(learner, given)
        torch.testing.assert_close(torch.from_numpy(looking.kernel(given)).float(), K, rtol=1e-4, atol=1e-5)
        assert looking.records[0]["row_ratio"] > 0 and not looking.records[0]["reason"]
        looking.asked.net.q_net[0].weight.data.fill_(torch.nan)
        record.record(looking, given)  # a record all the same
        bad = given._replace(actions=given.actions[:2])
        with pytest.raises(RuntimeError, match="batch must have as many actions"):
            record.record(looking, bad)

    def test_tabular(self):
        import numpy as np

        from benchmarks import tabular
        from divergence_notes import bellman, mdp

        for model in (tabular.dense(6, 2), tabular.sparse(12, 3)):
            best = tabular.optimum(model)
            solution = bellman.value_iteration(model, tol=tabular.TOL)
            assert np.abs(solution.Q.max(axis=1) - best).max() <= tabular.TOL
            assert np.abs(bellman.optimality_backup(solution.Q, model).max(axis=1) - best).max() <= tabular.TOL
        assert isinstance(model, mdp.FiniteMDP)

    def test_preqn(self, tmp_path, monkeypatch):
        import torch

        from benchmarks import preqn

        monkeypatch.chdir(tmp_path)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            agents = preqn.Agents((16, 8), transitions=40, batch_size=24)
            for net in (agents.ours["relu"].net, agents.ours["relu"].policy, *agents.theirs.critic.q_networks):
                assert [layer.out_features for layer in net if isinstance(layer, torch.nn.Linear)][:-1] == [16, 8]
                assert sum(isinstance(layer, torch.nn.ReLU) for layer in net) == 2
            assert agents.theirs.replay_buffer.size() == len(agents.buffer) == 40
            assert agents.theirs._n_updates == 0
            rows = preqn.measured(agents, "16-8", 2)
        finally:
            torch.set_num_threads(before)
        found = {(row["what"], row["case"], row["method"]) for row in rows}
        assert found == (
            {("update", f"16-8{end}", method) for end in AGENTS for method in (run.OURS, TD3)}
            | {("part of an update", "16-8", method) for method in PARTS}
            | {("solve", "16-8", method) for method in SOLVERS}
        )
        assert agents.theirs._n_updates == 3 * preqn.BLOCK
        assert {agent.updates for agent in agents.ours.values()} == {3 * preqn.BLOCK}
        every = {name: agent.config.policy_every for name, agent in agents.ours.items()}
        assert every == {name: 1 + name.endswith("slow policy") for name in preqn.LABELS}
        assert agents.theirs.policy_delay == 2
        assert not list(tmp_path.iterdir())

    def test_what_is_timed_is_what_an_update_does(self):
        import copy

        import torch

        from benchmarks import preqn
        from divergence_notes import preqn as ours

        agents = preqn.Agents((16, 8), transitions=40, batch_size=24)
        agent, batch = agents.ours["relu"], agents.draw()
        x, line, delta = preqn.linear(agent, batch)
        net = copy.deepcopy(agent.net)
        way = ours.direction(line.head(24), delta)
        search = {name: getattr(agent.config, name) for name in ("alpha", "eta", "shrink", "max_backtracks")}
        step = ours.line_search(net, x, line.values, delta, way.slopes, **search)
        said = agent.update(batch)
        assert (said["accepted"], said["residual"]) == pytest.approx((step.alpha, way.residual))
        for p, q in zip(net.parameters(), agent.net.parameters(), strict=True):
            torch.testing.assert_close(p, q)

    def test_residual(self):
        import torch

        from benchmarks import preqn

        K, delta = torch.diag(torch.tensor([1.0, 2.0, 0.0])), torch.tensor([3.0, 4.0, 0.0])
        torch.testing.assert_close(preqn.gelsd(K, delta), torch.tensor([3.0, 2.0, 0.0], dtype=torch.float64))
        assert preqn.residual(K, torch.tensor([3.0, 2.0, 0.0]), delta) == 0
        assert preqn.residual(K, torch.zeros(3), delta) == 1
