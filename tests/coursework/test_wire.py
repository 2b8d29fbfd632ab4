"""What crosses between the grader and the process of an answer: plain values, arrays, and names of anything else."""

import json

import marking
import numpy as np
import pytest
from grader import wire


class TestWire:
    @pytest.mark.parametrize(
        "value",
        [1, 2.5, True, "text", None, [1, [2.0]], (1, 2), {"a": 1}, ...],
    )
    def test_plain_values_return(self, value):
        assert wire.decode(json.loads(json.dumps(wire.encode(value)))) == value

    def test_arrays_return_with_their_type(self):
        for value in (np.arange(6, dtype=np.float32).reshape(2, 3), np.float64(2), np.array([True, False])):
            back = wire.decode(json.loads(json.dumps(wire.encode(value))))
            assert back.dtype == value.dtype and back.shape == value.shape and np.array_equal(back, value)

    def test_a_process_returns(self):
        from divergence_notes import bellman

        mdp = marking.grading.find("ex-bellman-shift").sample()[0][1]
        back = wire.decode(json.loads(json.dumps(wire.encode(mdp))))
        assert (bellman.optimality_backup(mdp.R, mdp) == bellman.optimality_backup(back.R, back)).all()

    def test_anything_else_is_but_a_name(self):
        back = wire.decode(json.loads(json.dumps(wire.encode(object()))))
        assert type(back).__name__ == "object" and type(back) is not object

    @pytest.mark.parametrize("where", [["os", "system"], ["divergence_notes.bellman", "optimality_backup"]])
    def test_only_dataclasses_of_the_package_are_made(self, where):
        with pytest.raises(ValueError, match="must be a dataclass of the package"):
            wire.decode({"is": "ours", "class": where, "fields": {}})
