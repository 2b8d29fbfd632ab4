"""The bestiary: that each fault is planted and found, what was committed, and how runs are counted."""

import numpy as np
import pandas as pd
import pytest

from divergence_notes import diagnosis, probe, studies
from divergence_notes.studies import bestiary

BY_DAY = ("discrete-nan", "continuous-limits", "loop-no-discount", "loop-dueling", "pairs-shared-optimiser", "loop")
"""Of each kind one, and a sound run."""

NOT_PLANTED = {"unexplained", "entropy", "after-ends", "too-low", "weight-decay", "still", "two-scales"}
"""What no run of the bestiary suffers from."""

SINCE = {"after_ends", "input_ratio", "reward_change"}
"""Columns that were not asked for yet when the logs of its first two parts were written."""

ALL = [(half, name) for half in bestiary.PARAMETERS["half"] for name in bestiary.PARAMETERS["name"]]


@pytest.fixture(scope="module")
def committed():
    return studies.load("bestiary")


def first(log):
    found = bestiary.of(log)
    return found[0].name if found else ""


class TestRunsOfTheBestiary:
    """Whoever does a run again finds what was committed."""

    @pytest.mark.parametrize("name", BY_DAY)
    def test_six(self, name):
        assert first(bestiary.run(half="tuning", name=name)) == bestiary.FAULTS.get(name, "")

    @pytest.mark.nightly
    @pytest.mark.parametrize(("half", "name"), ALL)
    def test_all(self, half, name, committed):
        """As committed; the three that lie at a threshold elsewhere would show here."""
        log = committed[(committed["half"] == half) & (committed["name"] == name)]
        again = bestiary.run(half=half, name=name)
        assert first(again) == first(log)
        assert len(again) == len(log)

    def test_two_runs_are_one(self):
        logs = [bestiary.run(half="judged", name="loop-dueling") for _ in range(2)]
        pd.testing.assert_frame_equal(*logs)


class TestCommittedBestiary:
    """The files in the book are all there, and the halves share nothing but the rules."""

    def test_all_are_there(self, committed):
        assert set(map(tuple, committed[["half", "name"]].drop_duplicates().to_numpy())) == set(ALL)

    def test_eighteen_and_eighteen(self):
        assert len(bestiary.FAULTS) == len(bestiary.SOUND) == 18
        assert set(bestiary.FAULTS.values()) | NOT_PLANTED == set(diagnosis.CAUSES)

    def test_no_algorithm_is_in_both_halves(self, committed):
        """Nor does the third part have one on tasks on which the others have it, or a seed of theirs."""
        of = committed.groupby("half")["setting_algorithm"].apply(lambda names: set(names.dropna()))
        assert not of["tuning"] & of["judged"] and min(map(len, of)) >= 3
        assert len(set(bestiary._SEEDS.values())) == len(bestiary.PARAMETERS["half"])

    def test_the_headline_of_the_report_is_the_column_that_warned_best(self, committed):
        """Over both parts that were asked: no other column is as good."""
        asked = [bestiary.warnings(committed, half=half).set_index("column") for half in ("judged", "fresh")]
        worth = sum(part["warned"] - part["false"] for part in asked)
        assert worth[worth == worth.max()].index.tolist() == [diagnosis.HEADLINE]

    def test_columns(self, committed):
        told = {name.removeprefix("setting_") for name in committed if name.startswith("setting_")}
        assert set(probe.COLUMNS) - set(committed) == {"status"} and told <= set(diagnosis.SETTINGS)
        early = committed[committed["half"] != "fresh"]
        assert early[[*SINCE]].isna().all(axis=None)


def log(name, half="judged", **columns):
    """Return a log of four records of a run that is well, with some columns replaced."""
    rows = pd.DataFrame({column: np.full(4, 0.5) for column in probe.NUMBERS})
    rows = rows.assign(half=half, name=name, step=range(4), updates=[0.0, 10.0, 20.0, 30.0], alarm=False)
    rows = rows.assign(verdict="earned", not_finite="", reason="", batch_dependence=0.0)
    rows = rows.assign(target_coupling=0.0, renewed=0.0, earned_high=[1.0, 2.0, 3.0, 4.0], input_size=1.0)
    return rows.assign(**columns)


class TestTable:
    """What is counted, by logs of four records."""

    def test_one_of_each_kind(self):
        mixed = log("loop-dueling", batch_dependence=[0, 0, 1, 1], alarm=[False, False, False, True])
        asleep = log("loop-limits", dormant_layer=0.9)
        found = bestiary.table(pd.concat([mixed, asleep, log("loop")])).set_index("name")
        assert found.loc["loop-dueling", ["named", "right", "named_at", "alarm_at"]].tolist() == [
            "mixed-batch", True, 20, 30,
        ]  # fmt: skip
        assert found.loc["loop-limits", ["named", "right"]].tolist() == ["dead-units", False]
        assert np.isnan(found.loc["loop-limits", "named_at"]) and np.isnan(found.loc["loop", "alarm_at"])
        assert found.loc["loop", ["fault", "named", "right"]].tolist() == ["", "", True]

    def test_a_finding_that_goes_away_again_has_not_been_made(self):
        back = log("loop-dueling", batch_dependence=[1.0, 0, 0, 0])
        assert bestiary.table(back)["named_at"].tolist() == [0]  # it was seen once, and that is not forgotten


class TestWarnings:
    """Which column leaves the range of sound runs first."""

    def test_by_hand(self):
        sound = [log("loop", "tuning", alignment=[0.5, 0.0, 0.5, 1.0]), log("loop")]
        broken = log("loop-no-copy", alignment=[9.0, 1.05, -0.2, 0.5], feature_rank=[0.5, 0.5, 0.5, 7.0])
        found = bestiary.warnings(pd.concat([*sound, broken]), half="judged").set_index("column")
        assert found.loc["alignment"].tolist() == [1, 1, 0, 20]  # 1.05 lies within a tenth of the range
        assert found.loc["feature_rank"].tolist() == [1, 0, 0, 30]
        assert found.loc["row_ratio", ["warned", "first", "false"]].tolist() == [0, 0, 0]
        assert found.index[0] == "alignment"

    def test_a_false_one_counts(self):
        sound = [log("loop", "tuning"), log("loop", margin=[0.5, 0.5, 0.5, 2.0])]
        found = bestiary.warnings(pd.concat([*sound, log("loop-no-copy")]), half="judged").set_index("column")
        assert found.loc["margin", "false"] == 1 and found["false"].sum() == 1

    def test_the_part_that_is_asked(self):
        """What other parts hold counts for nothing, but for the range of the first."""
        runs = [log("loop", "tuning"), log("loop-no-copy", "judged", margin=9.0), log("loop-no-copy", "fresh")]
        for half, warned in (("judged", 1), ("fresh", 0)):
            found = bestiary.warnings(pd.concat(runs), half=half).set_index("column")
            assert found["warned"].sum() == found.loc["margin", "warned"] == warned

    def test_units_of_the_task_are_divided_out(self):
        """Rewards a thousand times as large change no number that is compared."""
        small = log("loop", max_q=[1.0, 2.0, 3.0, 9.0])
        scaled = ("max_q", "low_q", "high_q", "earned_low", "earned_high", "start_return", "overestimation", "td_error")
        scaled += ("td_bias", "value_churn", "greedy_gap", "gradient_norm")
        large = small.assign(**{name: 1000 * small[name] for name in scaled})
        for name, part in bestiary.relative(small).items():
            np.testing.assert_allclose(bestiary.relative(large)[name], part, err_msg=name)
