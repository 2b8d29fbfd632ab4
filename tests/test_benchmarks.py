"""The benchmarks: what was recorded, how it is judged and written, and that our side of it runs. Nothing is timed."""

import json

import pytest

from benchmarks import measure, run
from tests.pages import ROOT

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
PEERS = {"divergence_notes", "torch.func", "nngeometry", "asdl", "limit"}


def made_up(ours=2.0, theirs=50.0):
    """Return rows of one comparison."""
    rows = [
        {"what": "gram", "case": "n = 1024", "method": "divergence_notes", "ms": ours, "mb": 10.0, "repeats": 3},
        {"what": "gram", "case": "n = 1024", "method": "torch.func", "ms": theirs, "mb": 400.0, "repeats": 2},
    ]
    return [row | {"run": "torch", "difference": 1e-7} for row in rows]


class TestRecorded:
    """results.json and the page made of it."""

    def test_the_page_is_made_of_the_results(self):
        assert run.render(RESULTS) == PAGE, "benchmarks/run.py --render"

    def test_every_row_is_there(self):
        found = {(row["what"], row["case"], row["method"]) for row in RESULTS["rows"]}
        assert {("gram", f"n = {n}", method) for n in run.SIZES for method in PEERS} <= found
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

    def test_a_missed_goal_is_named(self):
        missed, _, met = PAGE.partition("Met:\n")
        for goal, _, reached in run.judge(RESULTS["rows"]):
            assert f"- {goal};" in (met if reached else missed)

    def test_a_faster_peer_is_named(self):
        _, _, ahead = PAGE.partition("## Where a peer is faster")
        for row in RESULTS["rows"]:
            if row["method"] not in (run.OURS, "limit") and run.ratio(RESULTS["rows"], row, "ms") < 1:
                assert f"{row['what']}, {row['case']}: {row['method']} takes" in ahead

    def test_the_front_page_quotes_them(self):
        front = (ROOT / "README.md").read_text(encoding="utf-8")
        for n, peers in ((1024, ["torch.func"]), (4096, ["torch.func", "nngeometry", "asdl"])):
            for row in RESULTS["rows"]:
                if row["what"] == "gram" and row["case"] == f"n = {n}" and row["method"] in peers:
                    faster, less = (run.ratio(RESULTS["rows"], row, unit) for unit in ("ms", "mb"))
                    assert f"| {row['method']} | {n} | {faster:.3g} | {less:.3g} |" in front

    def test_machine_and_versions(self):
        machine = RESULTS["machine"]
        assert machine["cpu"] and machine["cores"] and machine["ram_gib"] and machine["python"] and RESULTS["date"]
        pinned = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("requirements*.txt"))
        for place in RESULTS["versions"].values():
            for name, version in place.items():
                assert f"{name}=={version.partition('+')[0]}" in pinned


class TestTable:
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

    def test_what_was_not_measured_is_no_goal_met(self):
        assert not any(met for _, _, met in run.judge([]))


class TestMeasured:
    """Our side of every comparison runs, at a size that takes no time."""

    def test_in_turns(self):
        calls = []
        methods = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
        seconds, first = measure.in_turns(methods, {"a": 3, "b": 1})
        assert calls == ["a", "b", "a", "a"]
        assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 1}
        assert first == {"a": 1, "b": 2}

    def test_peak_is_over_the_start(self):
        assert 20 < measure.peak_mb(lambda: bytearray(40_000_000)) < 60

    def test_gram(self):
        import torch

        from benchmarks import gram

        net, x = gram.network((23, 8, 8, 1)), gram.inputs(6)
        torch.testing.assert_close(gram.ours(net, x), gram.jacobian(net, x), rtol=0, atol=1e-5)

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
