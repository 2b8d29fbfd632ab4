"""From a log to a cause: what each rule takes for evidence, and that a log of any form is read alike."""

import io
import re

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import SAC, TD3

from divergence_notes import diagnosis, monitor, probe
from tests import pages

ROW = {
    "max_q": 5.0, "possible_low": 0.0, "possible_high": 100.0, "earned_low": 0.0, "earned_high": 20.0,
    "start_q": 10.0, "start_return": 9.0, "overestimation": 1.0, "td_error": 0.5, "td_bias": 0.0, "alarm": False,
    "verdict": "earned", "status": "undecided", "not_finite": "", "dormant": 0.1, "input_size": 3.0,
    "batch_dependence": 1e-7, "target_coupling": 0.0, "reward_low": 0.0, "reward_high": 1.0, "episode_length": 60.0,
    "same_length": 0.1, "weight_norm": 10.0, "feature_rank": 20.0, "greedy_gap": 0.5, "value_churn": 0.3,
    "start_sum": 20.0, "bound_ratio": 0.05, "gradient_norm": 1.0, "feature_norm": 3.0,
}  # fmt: skip
WRONG = {"alarm": True, "verdict": "impossible", "max_q": 500.0, "start_q": 400.0, "overestimation": 390.0}


def log(n=10, *, wrong_from=None, **columns):
    """Return records of a run that is well, with some columns replaced; from a record on its values are wrong."""
    rows = []
    for k in range(n):
        row = ROW | {"step": 100 + 20 * k, "updates": 10.0 * k, "renewed": 0.05 * k}
        row["earned_high"] += k % 3  # something is added to the data
        row |= WRONG if wrong_from is not None and k >= wrong_from else {}
        rows.append(row | {name: c[k] if isinstance(c, list) else c for name, c in columns.items()})
    return rows


def names(found):
    return [finding.name for finding in found]


class TestFormsOfALog:
    """A log is read alike in every form that the monitor, the probe or a logger writes."""

    def forms(self, rows):
        frame = pd.DataFrame(rows)
        yield rows
        yield frame
        yield {name: frame[name].tolist() for name in frame}
        yield pd.read_csv(io.StringIO(frame.to_csv(index=False)))
        logged = frame.drop(columns=["step", *probe.WORDS], errors="ignore").astype(float).add_prefix("divergence/")
        logged["time/total_timesteps"] = frame["step"]
        between = pd.DataFrame([{"time/total_timesteps": 1.0, "rollout/ep_rew_mean": 3.0}])
        yield pd.concat([logged.iloc[:3], between, logged.iloc[3:]], ignore_index=True)

    def test_the_same_finding(self):
        rows = log(wrong_from=6, target_coupling=0.9)
        found = [diagnosis.diagnose(form) for form in self.forms(rows)]
        assert names(found[0]) == ["no-target-network"]
        assert all(each == found[0] for each in found)

    def test_nothing_in_a_run_that_is_well(self):
        assert all(diagnosis.diagnose(form) == [] for form in self.forms(log()))

    def test_few_columns_are_enough_to_say_that_something_is_wrong(self):
        (found,) = diagnosis.diagnose([{"step": 7, "max_q": 500.0, "alarm": True}])
        assert (found.name, found.since) == ("unexplained", 7)
        assert "nan" not in found.seen and "No policy" not in found.why  # the log does not know

    @pytest.mark.parametrize("given", [3, [1, 2], None])
    def test_refuses_what_is_no_log(self, given):
        with pytest.raises(TypeError, match=r"^log must be a table of records, got "):
            diagnosis.diagnose(given)

    @pytest.mark.parametrize(("given", "message"), [
        ([], "log must have a column max_q, got none"),
        ({"loss": [1.0]}, "log must have a column max_q, got loss"),
        ({"max_q": [np.nan], "alarm": [np.nan]}, "log must have at least one record"),
    ])  # fmt: skip
    def test_refuses_an_empty_one(self, given, message):
        with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
            diagnosis.diagnose(given)


class TestAlarmsOfALog:
    """What cannot be read as an alarm is not taken for none."""

    def test_forms(self):
        given = [True, False, np.True_, 1, 0.0, "True", "false", " TRUE ", "1.0", "", None, np.nan, "nan"]
        want = [1, 0, 1, 1, 0, 1, 0, 1, 1, np.nan, np.nan, np.nan, np.nan]
        np.testing.assert_array_equal(diagnosis.alarms(given), want)
        assert names(diagnosis.diagnose([{"max_q": 9.0, "alarm": "TRUE"}])) == ["unexplained"]

    @pytest.mark.parametrize("word", ["yes", "alarm", "wahr", "!"])
    def test_refuses(self, word):
        message = f"^alarm must be True, False, a number or nothing, row 1 has {word!r}$"
        with pytest.raises(ValueError, match=message):
            diagnosis.diagnose([{"max_q": 1.0, "alarm": "False"}, {"max_q": 9.0, "alarm": word}])


class TestRulesOfDiagnosis:
    """The evidence of each rule, and the run beside it in which it is not enough."""

    def test_no_target_network(self):
        """It is less sure while the values are well; CrossQ is made so."""
        (early,) = diagnosis.diagnose(log(target_coupling=0.9))
        assert early.name == "no-target-network" and early.weight < 0.6
        assert diagnosis.diagnose(log(target_coupling=0.9), {"own_targets": True, "algorithm": "Mine"}) == []
        assert names(diagnosis.diagnose(log(target_coupling=0.9), {"own_targets": False})) == ["no-target-network"]
        (found,) = diagnosis.diagnose(log(target_coupling=0.9, wrong_from=6))
        assert (found.name, found.rests_on, found.since) == ("no-target-network", "behaviour", 0)
        assert "0.90 times" in found.seen and "from update 60 on" in found.seen

    def test_a_copy_at_every_update_is_none(self):
        quick = [10.0 * k for k in range(10)]
        (found,) = diagnosis.diagnose(log(renewed=quick, wrong_from=6))
        assert (found.name, found.rests_on, found.since) == ("no-target-network", "both", 10)
        assert "100%" in found.seen
        (early,) = diagnosis.diagnose(log(renewed=quick))
        assert (early.rests_on, early.weight) == ("setting", 0.5)
        assert diagnosis.diagnose(log(renewed=[0.05 * k for k in quick])) == []

    def test_one_copy_between_two_close_records_is_no_pace(self):
        close = {"updates": [0.0, 4, 8, 16, 32, 64, 128, 256, 512, 1024]}
        assert diagnosis.diagnose(log(**close, renewed=[0.0, 0] + [1.0] * 8)) == []
        assert names(diagnosis.diagnose(log(**close, renewed=[0.0, 4, 8] + [9.0] * 7))) == ["no-target-network"]

    def test_a_mixed_batch(self):
        (found,) = diagnosis.diagnose(log(batch_dependence=[1e-7] * 4 + [0.2] * 6))
        assert (found.name, found.since) == ("mixed-batch", 40) and "20%" in found.seen

    def test_a_stored_nan(self):
        (found,) = diagnosis.diagnose(log(not_finite=[""] * 3 + ["rewards"] * 7))
        assert (found.name, found.since) == ("not-finite", 30) and "rewards that are not finite" in found.seen

    def test_a_nan_after_a_blow_up_comes_last(self):
        gone = [""] * 8 + ["weights"] * 2
        found = diagnosis.diagnose(log(not_finite=gone, wrong_from=4, target_coupling=0.9))
        assert names(found) == ["no-target-network", "not-finite"]
        alone = diagnosis.diagnose(log(not_finite=gone))
        assert names(alone) == ["not-finite"] and alone[0].weight > found[1].weight

    def test_large_inputs(self):
        assert diagnosis.diagnose(log(input_size=1e5)) == []
        found = diagnosis.diagnose(log(input_size=1e5, wrong_from=3))
        assert names(found) == ["input-scale"] and "1e+05" in found[0].seen

    def test_large_inputs_whose_values_were_large_from_the_start(self):
        """No alarm, since they were so before training; but they lie above what can be earned."""
        beyond, n = {"low_q": -5.0, "high_q": 120.0, "verdict": "inherited"}, 20
        (found,) = diagnosis.diagnose(log(n, input_size=1e4, **beyond))
        assert found.name == "input-scale" and found.weight == 0.9
        assert "size 1e+04" in found.seen and "between -5 and 120, where 0 to 100 can be earned" in found.seen
        assert diagnosis.diagnose(log(n, input_size=900.0, **beyond)) == []
        assert diagnosis.diagnose(log(n, input_size=1e4, low_q=0.0, high_q=105.0)) == []
        assert diagnosis.diagnose(log(n, input_size=1e4, low_q=0.0, high_q=[120.0] * 5 + [80.0] * 15)) == []

    def test_one_input_that_dwarfs_the_others(self):
        (found,) = diagnosis.diagnose(log(input_size=8e4, input_ratio=2e4))
        assert found.name == "input-scale" and found.weight < 0.5 and "2e+04 times as large" in found.seen
        assert diagnosis.diagnose(log(input_size=8e4, input_ratio=500.0)) == []
        assert diagnosis.diagnose(log(input_size=8.0, input_ratio=2e4)) == []  # the others are small, it is not large

    def test_a_shared_optimiser(self):
        (found,) = diagnosis.diagnose(log(), {"actor_moves_critic": True})
        assert (found.name, found.rests_on) == ("actor-moves-critic", "setting")
        assert diagnosis.diagnose(log(), {"actor_moves_critic": False}) == []

    def test_time_limits(self):
        limit = {"time_limit": 60}
        assert names(diagnosis.diagnose(log(same_length=0.1), limit)) == ["time-limits"]
        assert diagnosis.diagnose(log(same_length=0.1), {"time_limit": 61}) == []
        assert diagnosis.diagnose(log(same_length=0.1)) == []
        assert names(diagnosis.diagnose(log(same_length=1.0))) == ["time-limits"]
        assert diagnosis.diagnose(log(same_length=np.nan), limit) == []

    def test_steps_that_are_too_large(self):
        """The first updates lengthen the weights; that they grow later is what every run that goes wrong does."""
        grown = [10.0] + [30.0] * 9
        (found,) = diagnosis.diagnose(log(weight_norm=grown))
        assert (found.name, found.rests_on, found.since) == ("step-size", "behaviour", 10) and found.weight == 0.9
        (told,) = diagnosis.diagnose(log(weight_norm=grown), {"learning_rate": 0.1})
        assert told.rests_on == "both" and "at a learning rate of 0.1" in told.seen
        (late,) = diagnosis.diagnose(log(weight_norm=[10.0] * 5 + [30.0] * 5))
        assert late.name == "step-size" and late.weight < 0.5
        dense = [10.0, 10, 30] + [30.0] * 7
        (close,) = diagnosis.diagnose(log(weight_norm=dense, updates=[0.0, 12, 24, 48, 96, 200, 400, 800, 1600, 3200]))
        assert close.weight == 0.9  # among the first updates, though not in the first record
        assert diagnosis.diagnose(log(weight_norm=[10.0 * 1.3**k for k in range(10)])) == []
        back = [10.0, 2.5, 2.5, 9.0] + [9.0] * 6
        assert diagnosis.diagnose(log(weight_norm=back)) == []  # what had shrunk has grown back
        large = {"weight_norm": grown, "reward_high": 1e4, "earned_high": 1e4, "start_q": 1e4, "max_q": 1e4}
        usual, long = {"learning_rate": 1e-3}, {"learning_rate": 0.03}
        assert diagnosis.diagnose(log(**large), usual) == []  # such rewards ask for long weights
        assert names(diagnosis.diagnose(log(**large), long)) == ["step-size"]
        assert diagnosis.diagnose(log(weight_norm=grown), {"own_steps": True}) == []
        assert diagnosis.diagnose(log(), {"learning_rate": 0.1}) == []

    def test_a_discount_that_leaves_nothing(self):
        (found,) = diagnosis.diagnose(log(start_return=0.1, start_sum=[9.0] * 4 + [30.0] * 6))
        assert (found.name, found.since) == ("discount", 40)
        assert diagnosis.diagnose(log(start_return=0.3, start_sum=20.0)) == []

    def test_no_discount(self):
        """It takes an end for the values to have one: a limit that cuts is none."""
        none = {"possible_high": np.inf, "bound_ratio": np.nan}
        assert diagnosis.diagnose(log(**none)) == []
        (found,) = diagnosis.diagnose(log(**none, same_length=np.nan))
        assert found.name == "discount" and "none of the stored episodes ended" in found.seen
        (grown,) = diagnosis.diagnose(log(**none, max_q=[5.0] * 5 + [80.0] * 5))
        assert (grown.name, grown.since) == ("discount", 50)
        assert diagnosis.diagnose(log(same_length=np.nan)) == []

    def test_rewards_of_an_unsuitable_size(self):
        large = {"reward_high": 1e5, "earned_high": 1e6}
        q = {"max_q": 1e3, "start_q": 1e3, "start_return": 1e6, "start_sum": 1e6}
        n = 14  # records, and the last come after the updates in which nothing is expected
        (found,) = diagnosis.diagnose(log(n, **large, **q))
        assert found.name == "reward-scale" and found.since > 100
        assert diagnosis.diagnose(log(n, **large, **q | {"start_q": 9e5})) == []
        assert diagnosis.diagnose(log(n, **q)) == []
        small = {"reward_high": 1e-4, "earned_high": 1e-2, "start_return": 1e-2, "start_sum": 1e-2}
        assert names(diagnosis.diagnose(log(n, **small))) == ["reward-scale"]
        assert diagnosis.diagnose(log(n, **small | {"reward_high": 0.01})) == []

    def test_values_that_something_else_lifts(self):
        """They lie above their targets, and do not fall: what the errors ask for does not happen."""
        above = {"td_bias": -0.48, "low_q": -5.0, "high_q": 5.0}
        (found,) = diagnosis.diagnose(log(50, **above))
        assert (found.name, found.rests_on) == ("actor-moves-critic", "behaviour")
        falling = [5.0 - 0.2 * k for k in range(50)]
        assert diagnosis.diagnose(log(50, **above | {"high_q": falling})) == []
        assert diagnosis.diagnose(log(50, **above | {"td_bias": 0.48})) == []
        for without in ({"actor": False}, {"two_modes": True}, {"offline": True}):
            assert diagnosis.diagnose(log(50, **above), without) == []
        assert names(diagnosis.diagnose(log(50, **above), {"actor": True})) == ["actor-moves-critic"]
        assert diagnosis.diagnose(log(8, **above)) == []

    def test_what_is_known_of_the_actor_is_not_asked_again(self):
        above = {"td_bias": -0.48, "low_q": -5.0, "high_q": 5.0}
        (unknown,) = diagnosis.diagnose(log(50, **above))
        (apart,) = diagnosis.diagnose(log(50, **above), {"actor_moves_critic": False})
        assert "Give the actor's optimiser" in unknown.remedy and "Give the actor's" not in apart.remedy
        assert "holds no parameter of the critic" in apart.remedy
        diverged = diagnosis.diagnose(log(50, **above, wrong_from=20), {"actor_moves_critic": False})
        assert names(diverged) == ["unexplained"]

    def test_weights_that_decay(self):
        """What the optimiser says of itself decides what to try; values that stay up are no second finding."""
        fallen = {"weight_norm": [10.0, 1.0] + [0.5] * 48, "td_bias": -0.48, "low_q": -0.01, "high_q": 0.01}
        apart = {"actor_moves_critic": False}
        (told,) = diagnosis.diagnose(log(50, **fallen), apart | {"weight_decay": 100.0})
        assert (told.name, told.since, told.rests_on) == ("weight-decay", 10, "both")
        assert "fell from length 10 to 0.5" in told.seen and "weight decay of 100" in told.seen
        assert told.remedy.startswith("Set the weight decay")
        (none,) = diagnosis.diagnose(log(50, **fallen), apart | {"weight_decay": 0.0})
        assert none.name == "weight-decay" and "has no weight decay" in none.remedy
        (unknown,) = diagnosis.diagnose(log(50, **fallen))
        assert unknown.rests_on == "behaviour" and "Look for what shortens" in unknown.remedy
        assert diagnosis.diagnose(log(50, weight_norm=[10.0] * 2 + [3.0] * 48), {"weight_decay": 0.01}) == []

    def test_values_that_stay_where_they_are(self):
        """They lie above their targets too, and nothing lifts them."""
        stay = {"td_bias": -0.48, "low_q": -5.0, "high_q": 5.0, "value_churn": 1e-4}
        (found,) = diagnosis.diagnose(log(80, **stay), {"learning_rate": 1e-8})
        assert found.name == "still" and "above their targets by 0.48" in found.seen and "1e-08" in found.seen
        (below,) = diagnosis.diagnose(log(80, **stay | {"td_bias": 0.48}))
        assert below.name == "still" and "below their targets" in below.seen
        assert diagnosis.diagnose(log(80, **stay | {"td_bias": 0.1})) == []  # of both signs: they have arrived
        assert diagnosis.diagnose(log(30, **stay)) == []  # not for long
        assert names(diagnosis.diagnose(log(80, **stay, wrong_from=20))) == ["unexplained"]

    def test_values_below_all_that_can_be_earned(self):
        """Targets are at least the smallest reward; on their way values lie below it too, but their targets do not."""
        low = {"reward_low": 1.0, "low_q": 0.3, "high_q": 0.6, "td_bias": 0.1, "possible_low": 1.0}
        (found,) = diagnosis.diagnose(log(30, **low))
        assert found.name == "too-low" and found.since == 110 and found.weight > 0.9
        assert "at least 1, no value of the batch is larger than 0.6" in found.seen and "at most 0.7" in found.seen
        assert diagnosis.diagnose(log(30, **low | {"td_bias": 0.5})) == []  # on the way
        assert diagnosis.diagnose(log(30, **low | {"high_q": 0.9})) == []
        assert diagnosis.diagnose(log(30, **low | {"low_q": [-0.5] + [0.3] * 29})) == []  # a target may be old
        assert diagnosis.diagnose(log(30, **low | {"reward_low": 0.0})) == []
        assert diagnosis.diagnose(log(30, **low | {"bonus": -0.2})) == []
        assert diagnosis.diagnose(log(9, **low)) == []

    def test_targets_that_look_beyond_ends(self):
        (found,) = diagnosis.diagnose(log(after_ends=[np.nan] * 3 + [1.0] * 7))
        assert (found.name, found.since) == ("after-ends", 30) and "in 7 of 7 records" in found.seen
        assert diagnosis.diagnose(log(after_ends=[1.0] * 4 + [0.0] * 6)) == []
        assert diagnosis.diagnose(log(after_ends=0.5)) == []  # time limits that are marked as ends, perhaps

    def test_stored_rewards_of_two_sizes(self):
        n, large = 14, {"reward_high": 1e5, "earned_high": 1e6, "max_q": 1e3, "start_q": 1e3, "start_return": 1e6}
        (found,) = diagnosis.diagnose(log(n, **large, start_sum=1e6, reward_change=1e-3))
        assert found.name == "two-scales" and "0.001 times as large" in found.seen
        for change in (0.5, np.nan):
            (other,) = diagnosis.diagnose(log(n, **large, start_sum=1e6, reward_change=change))
            assert other.name == "reward-scale"
        assert diagnosis.diagnose(log(n, reward_change=1e-3)) == []  # a task that is nearly solved

    def test_dead_units(self):
        (found,) = diagnosis.diagnose(log(dormant_layer=0.9))
        assert found.name == "dead-units" and "90%" in found.seen
        assert diagnosis.diagnose(log(dormant_layer=[0.9] * 5 + [0.7] * 5)) == []

    def test_data_that_stay_the_same(self):
        """Told, or seen: what the stored episodes earned is the same in every record."""
        fixed = {"earned_high": 20.0}
        (seen,) = diagnosis.diagnose(log(wrong_from=5, **fixed))
        assert (seen.name, seen.rests_on, seen.since) == ("offline", "behaviour", 50)
        (told,) = diagnosis.diagnose(log(wrong_from=5), {"offline": True})
        assert (told.name, told.rests_on) == ("offline", "both")
        assert diagnosis.diagnose(log(**fixed), {"offline": True}) == []
        assert names(diagnosis.diagnose(log(wrong_from=5, **fixed), {"offline": False})) == ["unexplained"]

    def test_many_updates_for_a_step(self):
        many, falling = {"updates": [200.0 * k for k in range(10)]}, [20.0 - 1.5 * k for k in range(10)]
        (found,) = diagnosis.diagnose(log(**many, feature_rank=falling))
        assert found.name == "replay-ratio" and "10 updates for each step" in found.seen
        assert diagnosis.diagnose(log(**many)) == []
        assert diagnosis.diagnose(log(feature_rank=falling)) == []

    def test_a_bonus_that_runs_away(self):
        (found,) = diagnosis.diagnose(log(bonus=[10.0 ** (k - 3) for k in range(10)]))
        assert found.name == "entropy" and "adds 1e+06 to each step, where rewards are of size 1" in found.seen
        assert diagnosis.diagnose(log(bonus=50.0)) == []  # rewards that are small beside it, as it was at the start
        assert diagnosis.diagnose(log(bonus=[0.01 * 2**k for k in range(10)])) == []  # it grows, and rewards are more

    def test_what_is_said_where_no_rule_fits(self):
        fast = {"verdict": "too fast", "alarm": True, "max_q": 63.0}
        rows = [row | fast if 3 <= k < 6 else row for k, row in enumerate(log(wrong_from=8))]
        (found,) = diagnosis.diagnose(rows)
        assert found.seen.startswith("Values of size 500,") and found.since == 80 and "No policy" in found.why
        (found,) = diagnosis.diagnose(rows[:7])
        assert found.since == 30 and "grown faster" in found.why and "No policy" not in found.why

    def test_the_likeliest_first(self):
        found = diagnosis.diagnose(log(target_coupling=0.9, wrong_from=3, batch_dependence=0.5, input_size=1e5))
        weights = [finding.weight for finding in found]
        assert len(found) == 3 and weights == sorted(weights, reverse=True)


class TestTextsOfFindings:
    """Whatever is found can be said: a title, a reason, a remedy, and a place in the book that is there."""

    def test_every_cause_has_them(self):
        assert set(diagnosis.CAUSES) == set(diagnosis._TEXTS)
        for why, chapter, remedy in diagnosis._TEXTS.values():
            assert why.endswith(".") and remedy.endswith(".") and re.fullmatch(r"[a-z_]+#[a-z-]+", chapter)

    def test_the_headline_is_a_column(self):
        assert diagnosis.HEADLINE in probe.NUMBERS

    @pytest.mark.parametrize("name", diagnosis.CAUSES)
    def test_the_page_has_the_place(self, name):
        """A label, or a title as it stands in an address."""
        page, _, anchor = diagnosis._TEXTS[name][1].partition("#")
        text = pages.markdown(pages.BOOK / f"{page}.ipynb")
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        known = {re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title in titles}
        assert anchor in known | set(re.findall(r"^\(([a-z0-9-]+)\)=$", text, re.MULTILINE))


def pendulum(algorithm, *, scale=1.0, steps=450, **settings):
    """Return what is found in a small run; the angular velocity may be seen in another unit."""
    unit = np.array([1, 1, scale], dtype=np.float32)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    env = gymnasium.wrappers.TransformObservation(gymnasium.make("Pendulum-v1"), lambda seen: unit * seen, space)
    given = {"seed": 0, "learning_starts": 100, "batch_size": 64, "device": "cpu"}
    network = {"net_arch": [32, 32]} | settings.pop("policy_kwargs", {})
    model = algorithm("MlpPolicy", env, policy_kwargs=network, **given | settings)
    callback = monitor.watch(model, every=25)
    model.learn(steps, callback=callback)
    return diagnosis.diagnose(callback.history, callback.settings)


class TestFoundInRuns:
    """Real runs, each with its kin that is well."""

    @pytest.mark.parametrize(("decay", "found"), [(100.0, "weight-decay"), (0.01, "")])
    def test_weight_decay(self, decay, found):
        optimizer = {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": decay}}
        said = pendulum(SAC, policy_kwargs=optimizer)
        assert names(said) == ([found] if found else [])
        assert not found or said[0].remedy.startswith("Set the weight decay")

    @pytest.mark.parametrize(("scale", "found"), [(1e4, "input-scale"), (1.0, "")])
    def test_an_input_in_another_unit(self, scale, found):
        said = pendulum(TD3, scale=scale)
        assert names(said)[:1] == ([found] if found else [])

    @pytest.mark.parametrize(("rate", "found"), [(1e-9, "still"), (1e-3, "")])
    def test_steps_that_move_nothing(self, rate, found):
        said = pendulum(SAC, learning_rate=rate, steps=900)
        assert names(said) == ([found] if found else [])

    @pytest.mark.parametrize(
        ("before", "now", "found"), [(1e3, 1.0, "two-scales"), (1.0, 1.0, ""), (1e3, 1e3, "reward-scale")]
    )
    def test_a_memory_of_another_run(self, before, now, found):
        """It is kept while the rewards are brought to another scale; at one scale it is none of two, large or not."""

        def made(scale, starts):
            env = gymnasium.wrappers.TransformReward(
                gymnasium.make("Pendulum-v1"), lambda reward: scale * float(reward)
            )
            given = {"seed": 0, "learning_rate": 1e-3, "batch_size": 32, "device": "cpu"}
            return TD3("MlpPolicy", env, learning_starts=starts, policy_kwargs={"net_arch": [16]}, **given)

        earlier, model = made(before, 1000), made(now, 0)
        earlier.learn(400)  # at random: it only stores
        model.replay_buffer = earlier.replay_buffer
        callback = monitor.watch(model, every=50)
        model.learn(300, callback=callback)
        assert names(diagnosis.diagnose(callback.history, callback.settings)) == ([found] if found else [])


class TestWhatALogDoesNotSay:
    """Words that a reader could refute are left out: of runs online, of epochs, of schedules, of one-step tasks."""

    @pytest.mark.parametrize(("low", "fixed"), [(0.0, True), (1.0, False)])
    def test_episodes_that_all_earn_the_same_need_not_be_the_same_ones(self, low, fixed):
        rows = log(wrong_from=6, earned_low=low, earned_high=1.0)
        assert ("offline" in names(diagnosis.diagnose(rows))) == fixed

    @pytest.mark.parametrize(("length", "fixed"), [(60.0, True), (100.0, False), (1000.0, False)])
    def test_data_without_a_new_end_may_be_of_one_long_episode(self, length, fixed):
        """The records are 180 steps of a run online, which may lie within two episodes of 100."""
        rows = log(wrong_from=6, earned_high=20.0, episode_length=length)
        assert ("offline" in names(diagnosis.diagnose(rows))) == fixed
        assert "offline" in names(diagnosis.diagnose(rows, {"offline": True}))

    @pytest.mark.parametrize("earned", [0.0, np.nan])
    def test_what_was_not_told_is_not_quoted(self, earned):
        rows = log(wrong_from=6, earned_low=earned, earned_high=earned + 20)
        (seen,) = (each.seen for each in diagnosis.diagnose(rows, {"offline": True}) if each.name == "offline")
        assert "nan" not in seen and ("earned between" in seen) == np.isfinite(earned)

    @pytest.mark.parametrize("offline", [False, True])
    def test_epochs_of_fixed_data_are_no_steps_in_the_environment(self, offline):
        rows = log(wrong_from=6, step=[*range(10)], updates=[300.0 * k for k in range(10)])
        found = names(diagnosis.diagnose(rows, {"offline": offline}))
        assert ("replay-ratio" in found) != offline

    def test_many_updates_on_data_that_stay_the_same_are_no_replay_ratio(self):
        rows = log(wrong_from=6, updates=[300.0 * k for k in range(10)])
        assert "replay-ratio" in names(diagnosis.diagnose(rows))
        same = log(wrong_from=6, updates=[300.0 * k for k in range(10)], earned_high=20.0)
        assert "replay-ratio" not in names(diagnosis.diagnose(same))

    @pytest.mark.parametrize(("length", "found"), [(1.0, []), (2.0, ["time-limits"])])
    def test_tasks_of_one_step_have_no_time_limit(self, length, found):
        assert names(diagnosis.diagnose(log(episode_length=length, same_length=1.0))) == found

    @pytest.mark.parametrize("rate", ["lin_0.001", lambda left: 1e-3 * left, float("nan")])
    def test_a_schedule_is_as_if_it_were_not_known(self, rate):
        rows = log(weight_norm=[10.0] + [1000.0] * 9)
        found = diagnosis.diagnose(rows, {"learning_rate": rate})
        assert found == diagnosis.diagnose(rows) != [] and "learning rate" not in found[0].seen
        assert "learning rate of 0.001" in diagnosis.diagnose(rows, {"learning_rate": 0.001})[0].seen

    def test_what_came_before_the_first_record_is_not_known(self):
        lost = {"not_finite": "weights", "status": "diverged", "max_q": np.nan}
        (first,) = diagnosis.diagnose([log(1)[0] | lost])
        (later,) = diagnosis.diagnose([*log(2, max_q=[5.0, 4.0]), log(3)[2] | lost])
        assert first.seen == "The weights are not finite, from the first record on."
        assert later.seen == "The weights are no longer finite; the largest value before that was 5."
