"""The report on a class: mistakes are counted, and copies are found under other names, comments and layouts."""

import shutil

import grade
import nbformat
import overview
import pytest
from grader.preprocessors import grade_id
from questions import bellman

from tests.coursework.submissions import edit

SOFT = """def soft_backup(Q, mdp, tau):
    best = Q.max(axis=1)
    soft_values = best + tau * np.log(np.exp((Q - best[:, None]) / tau).sum(axis=1))
    return mdp.R + mdp.gamma * (mdp.transitions @ soft_values).reshape(mdp.R.shape)"""
COPIED = '''def soft_backup(values, game, t):
    """My own."""
    # the largest of each row
    m = values.max( axis=1 )

    log_sum = m + t * np.log(np.exp((values - m[:, None]) / t).sum(axis=1))
    return game.R + game.gamma * (game.transitions @ log_sum).reshape(game.R.shape)'''
OWN = """def soft_backup(Q, mdp, tau):
    out = np.zeros(Q.shape)
    values = [q.max() + tau * np.log(sum(np.exp((q - q.max()) / tau))) for q in Q]
    for i, row in enumerate(mdp.transitions):
        out[i // Q.shape[1], i % Q.shape[1]] = row @ values
    return mdp.R + mdp.gamma * out"""
PROOF = """The map keeps order and commutes with constants, so that a bound of the difference is a bound of the images,
and the discount comes in front of it since the chances of the next state add up to one at most."""
OTHER = """Take the gradient of the soft maximum, which is a distribution over actions, and use the mean value theorem
for each of the next states; then average, and multiply with gamma, which is below one."""


@pytest.fixture
def root(made, tmp_path):
    """Return a course with four graded notebooks, and one student who cannot be graded."""
    root = shutil.copytree(made[0], tmp_path / "instructor")
    work = {
        "ann": (SOFT, PROOF, bellman.SOFT.mistakes[0]),
        "bob": (COPIED, PROOF.replace("The map", "My map"), bellman.SOFT.mistakes[0]),
        "cem": (OWN, OTHER, bellman.SOFT.mistakes[1]),
        "dot": ("...", "", None),
    }
    for student, (code, proof, mistake) in work.items():
        notebook = nbformat.read(root / "solution" / "bellman" / "bellman.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
            if grade_id(cell) in (
                "bug-answer",
                "bug-where",
                "sweep-answer",
                "predict-answer",
                "long-answer",
                "long-claim-answer",
            ):
                cell.source = "..."
            if grade_id(cell) == "soft-test" and mistake:
                text = f"Not yet. {mistake.text.replace(' ', chr(10), 3)}: state 1, action 0"  # however it is wrapped
                cell.outputs = [nbformat.v4.new_output("stream", text=text)]
        edit(notebook, "soft-answer", code)
        edit(notebook, "derive-answer", proof)
        place = root / "autograded" / student / "bellman"
        place.mkdir(parents=True)
        nbformat.write(notebook, place / "bellman.ipynb")
    for student in (*work, "eve"):
        (root / "submitted" / student / "bellman").mkdir(parents=True)
    return root


class TestClassReport:
    def test_mistakes_are_counted(self, root):
        source = nbformat.read(root / "source" / "bellman" / "bellman.ipynb", as_version=4)
        found = overview.notebooks(root, "bellman", ["ann", "bob", "cem", "dot", "eve"])
        rows = overview.mistakes("bellman", source, found)
        assert bellman.BUG.mistakes[0].text in bellman.SOFT.mistakes[0].text  # and is not counted for it
        first, second = (bellman.SOFT.mistakes[at].text for at in (0, 1))
        assert [(row["mistake"], row["students"]) for row in rows] == [(first, ["ann", "bob"]), (second, ["cem"])]

    def test_copies_are_found_and_nobody_else_is(self, root):
        source = nbformat.read(root / "source" / "bellman" / "bellman.ipynb", as_version=4)
        pairs = overview.alike(source, overview.notebooks(root, "bellman", ["ann", "bob", "cem", "dot"]))
        assert {(pair["question"], pair["one"], pair["two"]) for pair in pairs} == {
            ("soft-answer", "ann", "bob"),
            ("derive-answer", "ann", "bob"),
        }

    def test_is_written_by_a_command(self, root, capsys):
        grade.main(["report", "bellman", "--root", str(root)])
        said = capsys.readouterr().out
        assert "# bellman: 4 of 5 could be graded" in said and "soft-answer: ann and bob, 100%" in said
        text = (root / "bellman-class.md").read_text(encoding="utf-8")
        assert "- 2 times: Your operator bootstraps" in text and "no proof of anything" in text


class TestFormOfAnswers:
    @pytest.mark.parametrize("source", ["x = 90", "def f(", "", "x" * 10 + "\x00", "(" * 5000])
    def test_what_is_short_or_no_program_has_none(self, source):
        assert overview.form(source) is None

    def test_numbers_and_order_count(self):
        assert overview.form(SOFT) == overview.form(COPIED)
        assert overview.form(SOFT.replace("axis=1", "axis=0")) != overview.form(SOFT) != overview.form(OWN)

    def test_short_texts_are_not_compared(self):
        assert overview.rows_of_words("It contracts because gamma is below one.") is None
        assert overview.rows_of_words(PROOF) is not None
