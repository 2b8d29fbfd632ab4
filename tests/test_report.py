"""The page about a run: right for every state that a log can be left in, and with nothing to load."""

import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat, configure

from divergence_notes import diagnosis, probe, report, returns
from divergence_notes.monitor import DivergenceCallback, watch
from divergence_notes.plotting import reports
from tests.page_checks import foreign, repeated
from tests.pages import ROOT


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def history(n=40, alarm_at=12, *, whole=False):
    """Return a made-up history whose values grow by a factor of 1.3 a record and are impossible from a record on.

    Of the columns that a page draws only two are there, unless it is to be whole.
    """
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"step": 100 * np.arange(1, n + 1)})
    log = pd.concat([log, pd.DataFrame(rng.random((n, len(probe.NUMBERS))), columns=probe.NUMBERS)], axis=1)
    unknown = set(probe.NUMBERS) - {*report._CURVES, diagnosis.HEADLINE}
    log[sorted(unknown)] = np.nan  # what no rule can read
    log["dormant"] *= 0.01
    log["weight_norm"] += 20.0  # it neither grows nor shrinks
    log["max_q"] = 1.3 ** np.minimum(np.arange(n), 200.0)
    log["updates"] = 4.0 * log["step"]
    log["bound"], log["possible_low"], log["possible_high"] = 20.0, -20.0, 20.0
    log["bound_ratio"] = log["max_q"] / 20
    log["same_length"] = log["batch_dependence"] = log["target_coupling"] = 0.0
    log["alarm"] = np.arange(n) >= alarm_at
    log["verdict"] = np.where(log["alarm"], "impossible", "earned")
    log = log.assign(status="undecided", not_finite="", reason="")
    return log if whole else log.drop(columns=[name for name in report._CURVES if name not in ("max_q", "td_error")])


def page(log, **given):
    """Return the page of a log, parsed, and what it says on top."""
    made = BeautifulSoup(report.html(log, **{"title": "a run"} | given), "html.parser")
    return made, made.select_one(".verdict").get_text(" ", strip=True)


def written(tmp_path, text, name="run.csv"):
    """Return the parsed page of a file with this text, and its records."""
    log = tmp_path / name
    log.write_bytes(text.encode())
    report.write(tmp_path / "report.html", log)
    return BeautifulSoup((tmp_path / "report.html").read_text("utf-8"), "html.parser"), report.read(log)[0]


class TestStatesOfALog:
    """A log is read as far as it goes, and what was left out is said."""

    @pytest.mark.parametrize("text", ["", "\n", ",".join(probe.COLUMNS) + "\n"])
    def test_empty(self, tmp_path, text):
        made, log = written(tmp_path, text)
        assert log.empty and made.h1.get_text() == "No record: nothing is known"
        assert made.select("svg") == [] and "ended before the first record" in made.get_text()

    def test_one_line(self, tmp_path):
        made, log = written(tmp_path, history(1, 0).to_csv(index=False))
        assert len(log) == 1 and made.h1.get_text() == "Alarm: impossible"
        assert "At 1 of 1 record, from step 100 to the last one." in made.get_text() and made.select("svg")

    def test_steps_may_be_the_index_and_a_part_of_a_log_is_one(self):
        log = report.records(history())
        pd.testing.assert_frame_equal(report.records(history().set_index("step")), log)
        part = history().drop(columns="step")[10:]
        assert report.records(part).max_q.tolist() == log.max_q[10:].tolist()
        assert report.records(part).step.tolist() == list(range(len(part)))

    def test_numbers_that_are_none(self, tmp_path):
        log = history()
        log.loc[3, "max_q"], log.loc[5:7, "max_q"], log.loc[9, "td_error"] = np.nan, np.inf, -np.inf
        log.loc[39, ["max_q", "bound_ratio", "td_error"]] = np.nan
        log.loc[39, ["status", "verdict", "not_finite"]] = ["diverged", "not finite", "rewards"]
        made, read = written(tmp_path, log.to_csv(index=False))
        pd.testing.assert_frame_equal(read, report.records(log))
        assert made.h1.get_text() == "Alarm: not finite"
        said = next(c.get_text() for c in made.select("figcaption") if c.b.get_text() == "max_q")
        assert "At 5 of 40 records it is not known or not finite." in said and "inf" not in said
        assert f"the largest is {1.3**38:.3g}, at step 3900" in said
        nothing = log.assign(**dict.fromkeys(probe.NUMBERS, np.nan)).assign(alarm=True)
        assert page(nothing)[0].select("svg") == []

    @pytest.mark.parametrize("left", [1, 7, 100])
    def test_killed(self, tmp_path, left):
        """Of a line that was cut, no number is believed: 1.2 may have been 1.25."""
        whole = history(20).to_csv(index=False)
        made, read = written(tmp_path, whole[:-left])
        assert len(read) == 19 and "The last line was not written to its end" in made.get_text()
        assert "left out" not in written(tmp_path, whole)[0].get_text()

    def test_killed_within_a_text_of_several_lines(self, tmp_path):
        log = history(20)
        log.loc[19, "reason"] = 'the kernel: RuntimeError: "of\nthree\nlines"'
        whole = log.to_csv(index=False)
        assert len(written(tmp_path, whole)[1]) == 20
        for end in (whole.index("of\nthree") + 1, whole.index("three") + 2, whole.index("lines") + 1):
            assert len(written(tmp_path, whole[:end])[1]) == 19

    def test_a_line_of_another_length(self, tmp_path):
        lines = history(20).to_csv(index=False).splitlines()
        lines[5] = lines[5][: len(lines[5]) // 2] + lines[6]
        made, read = written(tmp_path, "\n".join(lines) + "\n")
        assert len(read) == 19 and "1 lines have not as many fields as the first" in made.get_text()

    def test_two_runs_in_one_file(self, tmp_path):
        both = pd.concat([history(30), history(20, 30)])
        made, read = written(tmp_path, both.to_csv(index=False))
        assert len(read) == 20 and made.h1.get_text() == "No alarm: earned"
        assert "Steps begin anew 1 time: this is about the last run." in made.get_text()

    def test_a_long_one_is_no_larger(self, tmp_path):
        sizes = []
        for n in (2_000, 100_000):
            few = history(n, 900)[["step", "max_q", "td_error", "alarm", "verdict"]]
            written(tmp_path, few.to_csv(index=False, float_format="%.5g"))
            sizes.append((tmp_path / "report.html").stat().st_size)
        assert sizes[1] < 1.2 * sizes[0] < 1_000_000

    def test_names_of_somebody_else(self, tmp_path):
        """What stands in a log, its name or a setting is text, and no part of the page."""
        evil = "<script>alert(1)</script>"
        log = history().rename(columns={"row_ratio": evil}).assign(reason=evil, verdict=evil)
        folder = tmp_path / "Läufe mit Größe"
        folder.mkdir()
        log.to_csv(folder / "ein <b>Lauf.csv", index=False)
        report.write(folder / "Bericht ä.html", folder / "ein <b>Lauf.csv", settings={evil: evil})
        text = (folder / "Bericht ä.html").read_text("utf-8")
        made = BeautifulSoup(text, "html.parser")
        assert made.select("script, main b b, .run b") == [] and evil not in text
        assert made.select_one(".run").get_text() == "Läufe mit Größe/ein <b>Lauf.csv"
        assert [cell.get_text() for cell in made.select("table")[-1].select("tbody :is(th, td)")] == [evil, evil]

    def test_an_alarm_in_words_that_nobody_knows(self, tmp_path, capsys):
        log = history(3, 1)
        log["alarm"] = ["no", "yes", "yes"]
        log.to_csv(tmp_path / "run.csv", index=False)
        assert report.main([str(tmp_path / "run.csv")]) == 2
        assert capsys.readouterr().err == "alarm must be True, False, a number or nothing, row 0 has 'no'\n"
        assert not (tmp_path / "run.html").exists()
        with pytest.raises(ValueError, match=r"^alarm must be True"):
            report.records(log)

    def test_what_is_no_log(self, tmp_path):
        path = tmp_path / "run.csv"
        path.write_text("time,loss\n1,2\n")
        message = "log must have columns of a record, such as max_q or divergence/max_q, got 'time', 'loss'"
        with refuses(ValueError, message):
            report.read(path)
        with refuses(TypeError, "run must be a history, what has one, or the path of a log, got int"):
            report.write(tmp_path / "report.html", 3)
        with refuses(ValueError, f"path must be another file than the log, got {path}"):
            report.write(path, path)
        assert path.read_text() == "time,loss\n1,2\n" and list(tmp_path.iterdir()) == [path]


class TestVerdictOfALog:
    """The words on top are those of the monitor."""

    @pytest.mark.parametrize("word", returns.VERDICTS)
    def test_each_word(self, word):
        log = history(alarm_at=40).assign(verdict="earned")
        log.loc[39, ["verdict", "alarm"]] = [word, word in returns.ALARMING]
        made, top = page(log)
        assert made.h1.get_text() == f"{'Alarm' if word in returns.ALARMING else 'No alarm'}: {word}"
        assert returns.VERDICTS[word][1:] in top

    def test_an_alarm_that_has_stopped(self):
        log = history(alarm_at=40)
        log.loc[10:19, ["verdict", "alarm"]] = ["too fast", True]
        made, top = page(log)
        assert made.h1.get_text() == "There was an alarm: too fast"
        assert "At 10 of 40 records, from step 1100 to step 2000; the last record, at 4000, says: earned." in top

    def test_no_alarm_is_no_proof(self):
        made, top = page(history(alarm_at=40))
        assert "That is no proof that the values are right." in top and not made.select(".findings")

    def test_a_log_without_words(self):
        made, _ = page(history().drop(columns=["verdict", "status", "reason", "not_finite"]))
        assert made.h1.get_text() == "Alarm: an alarm, the log does not say which"

    def test_findings(self):
        log = history().assign(batch_dependence=0.5)
        settings = {"actor_moves_critic": True}
        found = diagnosis.diagnose(log, settings)
        assert len(found) > 1
        made, top = page(log, settings=settings)
        titles = [diagnosis.CAUSES[finding.name] for finding in found]
        assert [head.get_text() for head in made.select("h3")] == titles
        assert found[0].seen in top and found[0].remedy in top
        links = [link["href"] for link in made.select("a")]
        assert links == [f"{report.BOOK}{'.html#'.join(finding.chapter.split('#'))}" for finding in found]
        told = report.text(report.summary(log, settings))
        assert all(part in told for finding in found for part in (finding.seen, finding.why, finding.remedy))
        assert told.startswith("Alarm: impossible: no policy can earn that")

    def test_the_headline_comes_first(self):
        first = page(history())[0].figcaption.b.get_text()
        assert first == diagnosis.HEADLINE


def test_links_lead_into_the_book():
    settings = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert f"baseurl: {report.BOOK.removesuffix('book/')}" in settings


class TestReportPage:
    """It stands alone, each id in it is there once, and each picture has its words."""

    def test_alone(self):
        made, _ = page(history(whole=True), settings={"gamma": 0.99})
        assert foreign(made) == [] and made.select("script, link, img, iframe, object, embed") == []
        styles = " ".join(str(tag) for tag in made.select("style, [style]"))
        assert re.findall(r"@import|url\((?!#)", styles) == []
        assert "default-src 'none'" in made.select_one("meta[http-equiv]")["content"]
        assert repeated(made) == []

    def test_each_picture_has_its_words(self):
        made, _ = page(history(whole=True))
        assert len(made.select("svg")) == 8
        for svg in made.select("svg"):
            names = svg["aria-labelledby"].split()
            said = " ".join(made.find(id=name).get_text() for name in names)
            assert svg["role"] == "img" and len(said.split()) > 10
            assert svg.find_parent("figure").figcaption.get_text()

    def test_every_reference_in_a_picture_is_to_the_picture(self):
        for svg in page(history(whole=True))[0].select("svg"):
            ids = {tag["id"] for tag in svg.find_all(id=True)}
            used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', str(svg)))
            assert used and used <= ids

    def test_settings_and_versions(self):
        made, _ = page(history(whole=True), settings={"gamma": 0.99, "offline": False})
        cells = [cell.get_text() for cell in made.select("table")[-1].select("tbody :is(th, td)")]
        assert cells == ["gamma", "0.99", "offline", "no"]
        assert re.search(r"divergence-notes \d.*Python 3\..*torch \d", made.get_text())

    def test_the_last_record_in_full(self):
        log = history(whole=True)
        rows = {row.th.get_text(): row.td.get_text() for row in page(log)[0].select("details tbody tr")}
        assert set(rows) == set(probe.COLUMNS) - {"reason", "not_finite"}
        assert float(rows["max_q"]) == pytest.approx(log["max_q"].iloc[-1], rel=1e-5) and rows["alarm"] == "yes"


class TestReportCurves:
    """Few points stand for many, and the moment is where it was."""

    def test_thinned(self):
        log = history(5_000, 3_333)
        log["max_q"] = np.random.default_rng(1).random(5_000)
        log.loc[1234, "max_q"], log.loc[4321, "max_q"] = 9.0, -9.0
        few = report._thinned(log, "max_q")
        assert len(few) <= 305 and {0, 1234, 3333, 4321, 4999} <= set(few.index)
        assert few["step"].is_monotonic_increasing

    @pytest.mark.parametrize("moment", [1300, 2600])
    def test_the_moment_is_marked(self, moment):
        """The line stands below the dot of that step."""
        svg = reports.history_svg(history(), "td_error", name="x", title="t", description="d", moment=moment)
        root = ElementTree.fromstring(svg)
        paths = [(p.get("d"), p.get("style") or "") for p in root.iter("{http://www.w3.org/2000/svg}path")]
        line = next(d for d, style in paths if "var(--alarm)" in style and "dasharray" in style)
        curve = next(d for d, style in paths if "var(--line)" in style and d.count("L") == 39)
        points = [float(x) for x in re.findall(r"[ML] (\S+) \S+", curve)]
        assert float(line.split()[1]) == pytest.approx(points[moment // 100 - 1], abs=0.01)

    def test_the_moment_is_that_of_the_finding(self):
        """A finding counts updates, of which there are four for each step; the first one of the list counts."""
        log = history()
        log["batch_dependence"] = np.where(np.arange(40) >= 20, 0.5, 0.0)
        assert diagnosis.diagnose(log)[0].since == 8400
        assert "stands at step 2100" in page(log)[0].get_text()
        assert "stands at step" not in page(history(alarm_at=40))[0].get_text()

    def test_colours_are_those_of_the_page(self):
        svg = reports.history_svg(history(), "max_q", name="x", title="<t>", description="d & e", moment=100)
        assert "<t>" not in svg and "d &amp; e" in svg
        assert set(re.findall(r"(?:stroke|fill): (#\w+)", svg)) <= {"#b0b0b0"}  # the grid

    def test_pyplot_is_left_alone(self):
        import matplotlib.pyplot as plt

        before = plt.get_fignums(), dict(plt.rcParams)
        reports.history_svg(history(), "max_q", name="x", title="t", description="d")
        assert (plt.get_fignums(), dict(plt.rcParams)) == before


def diverging(**settings):
    """Return a DQN whose values blow up within a few hundred steps."""
    given = {"learning_rate": 0.05, "learning_starts": 50, "train_freq": 1, "target_update_interval": 1, "seed": 1}
    given |= {"policy_kwargs": {"net_arch": [32, 32]}, "device": "cpu", "buffer_size": 2_000}
    return DQN("MlpPolicy", "CartPole-v1", **given | settings)


class TestInARun:
    """One option, and the page is there, even of a run that does not come to its end."""

    def test_at_the_end(self, tmp_path):
        model = diverging()
        callback = watch(model, every=50, report=tmp_path / "report.html")
        model.learn(400, callback=callback)
        made = BeautifulSoup((tmp_path / "report.html").read_text("utf-8"), "html.parser")
        want = report.summary(callback.history, callback.settings)
        assert made.h1.get_text() == want.headline and want.state == "alarm"
        assert made.select_one(".run").get_text() == "DQN, 400 steps"
        settings = dict(
            zip(
                *[[c.get_text() for c in made.select(f"table:last-of-type {n}")] for n in ("tbody th", "td")],
                strict=False,
            )
        )
        assert "algorithm" in settings

    def test_a_run_that_fails_has_its_page(self, tmp_path):
        """SAC refuses a nan in its policy with an exception: training never ends."""
        model = SAC(
            "MlpPolicy", "Pendulum-v1", learning_starts=50, seed=0, policy_kwargs={"net_arch": [16]}, device="cpu"
        )
        callback = watch(model, every=1, batch_size=16, report=tmp_path / "report.html")
        real = model.train

        def train(gradient_steps, batch_size):
            real(gradient_steps, batch_size)
            if model.num_timesteps == 65:
                next(model.critic.parameters()).data.fill_(float("nan"))

        model.train = train
        with pytest.raises(ValueError, match="Expected parameter loc"):
            model.learn(200, callback=callback)
        assert "Alarm: not finite" in (tmp_path / "report.html").read_text("utf-8")

    def test_the_log_of_the_library(self, tmp_path):
        """What the logger of stable-baselines3 wrote is read as the history is, the words of the verdict included."""
        model = diverging()
        model.set_logger(configure(str(tmp_path), ["csv"]))
        callback = DivergenceCallback(every=50)
        model.learn(400, callback=callback, log_interval=1)
        model.logger.close()
        lines = (tmp_path / "progress.csv").read_text("utf-8").splitlines()
        log, notes = report.read(tmp_path / "progress.csv")
        assert len(log) == len(callback.history) < len(lines) - 1 and notes == []
        for name in ("step", "max_q", "alarm", "verdict"):
            assert log[name].tolist() == pytest.approx(callback.history[name].tolist(), nan_ok=True) or (
                log[name].tolist() == callback.history[name].tolist()
            )

    def test_boards(self, tmp_path, monkeypatch):
        """TensorBoard gets the text by the library's own writer, a run of W&B that is going on the page."""
        written, logged = [], []

        class Writer:
            def __getattr__(self, name):
                return lambda *given: written.append((name, *given))

        board = TensorBoardOutputFormat.__new__(TensorBoardOutputFormat)
        board.writer, board._is_closed = Writer(), False
        online = types.SimpleNamespace(summary={}, log=logged.append)
        monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=online, Html=lambda text: ("html", text)))
        model = diverging()
        model.set_logger(Logger(str(tmp_path), [board]))
        callback = DivergenceCallback(every=50)
        model.learn(400, callback=callback)
        texts = [given[1] for name, *given in written if name == "add_text" and given[0] == "divergence/report"]
        told = report.summary(callback.history, callback.settings)
        assert texts[-1] == report.text(told) and len(texts) > 1
        words = [given[1] for name, *given in written if name == "add_text" and given[0] == "divergence/verdict"]
        assert words == callback.history["verdict"].tolist()
        assert online.summary == {"divergence/verdict": told.headline}
        assert logged[-1]["divergence/report"][1].startswith("<!doctype html>")

    def test_a_writer_that_takes_no_words_leaves_the_run(self, tmp_path):
        """What it refused is not there any more when the run itself writes its log."""

        class Numbers(KVWriter):
            def write(self, key_values, key_excluded, step=0):
                for value in key_values.values():
                    float(value)

        model = diverging()
        model.set_logger(Logger(str(tmp_path), [Numbers()]))
        callback = DivergenceCallback(every=50)
        model.learn(300, callback=callback, log_interval=1)
        assert model.num_timesteps == 300 and len(callback.history) > 3
        assert "could not convert string" in "".join(callback.history["reason"])

    def test_refuses(self, tmp_path):
        missing = tmp_path / "none" / "report.html"
        with refuses(ValueError, f"report must lie in a folder that is there, got {missing}"):
            DivergenceCallback(report=missing)

    def test_a_report_that_fails_leaves_the_run(self, tmp_path, caplog):
        model = diverging()
        callback = watch(model, every=50, report=tmp_path / "report.html")
        (tmp_path / "report.html").mkdir()
        model.learn(200, callback=callback)
        assert model.num_timesteps == 200 and "the report: " in "".join(callback.history["reason"])

    def test_of_a_probe(self, tmp_path):
        net = torch.nn.Linear(3, 2)
        watching = probe.Probe(net, lambda batch: torch.zeros(4), gamma=0.9)
        batch = {"observations": torch.ones(4, 3), "actions": torch.zeros(4, dtype=torch.long)}
        batch |= {"next_observations": torch.ones(4, 3), "dones": torch.zeros(4), "rewards": torch.full((4,), 1.0)}
        watching(batch, step=0)
        told = report.write(tmp_path / "report.html", watching)
        assert told.headline == "No alarm: inherited"
        assert told.headline in (tmp_path / "report.html").read_text("utf-8")


class TestCommand:
    """One line makes the page, and says in the terminal what it says."""

    def test_whole(self, tmp_path):
        history().to_csv(tmp_path / "my run.csv", index=False)
        command = [sys.executable, "-m", "divergence_notes.monitor", "my run.csv", "--set", "gamma=0.99"]
        done = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")
        said = done.stdout.decode()
        assert said.startswith("Alarm: impossible: no policy can earn that") and "Try first: " in said
        assert said.endswith(f"The report is {tmp_path / 'my run.html'}\n")
        assert "<td>0.99</td>" in (tmp_path / "my run.html").read_text("utf-8")

    def test_title_and_output(self, tmp_path, capsys):
        history().to_csv(tmp_path / "run.csv", index=False)
        given = [str(tmp_path / "run.csv"), "-o", str(tmp_path / "x.html"), "--title", "Der Große"]
        assert report.main(given) == 0
        assert '<p class="run">Der Große</p>' in (tmp_path / "x.html").read_text("utf-8")
        assert not (tmp_path / "report.html").exists() and not (tmp_path / "run.html").exists()

    def test_refuses(self, tmp_path, capsys):
        assert report.main([str(tmp_path / "none.csv")]) == 2
        assert "No such file" in capsys.readouterr().err
        (tmp_path / "run.csv").write_text("a,b\n1,2\n")
        assert report.main([str(tmp_path / "run.csv")]) == 2
        assert capsys.readouterr().err.startswith("log must have columns of a record")
        with pytest.raises(SystemExit):
            report.main([str(tmp_path / "run.csv"), "--set", "gamma"])
        assert "must be KEY=VALUE, got 'gamma'" in capsys.readouterr().err


def test_the_lines_of_the_front_page(tmp_path, monkeypatch):
    """A SAC that diverges, as it stands there, with smaller networks and fewer steps: a sentence that helps."""
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    block = front.partition("## Your run is going wrong?")[2].partition("`report.html` is one file")[0]
    code = "\n".join(line[4:] for line in block.splitlines() if line.startswith("    ") and "pip install" not in line)
    assert code.count("\n") == 2
    code = code.replace("learn(3_000", "learn(600")
    monkeypatch.chdir(tmp_path)

    def small(*given, **settings):
        return SAC(*given, policy_kwargs={"net_arch": [32, 32]}, seed=0, device="cpu", **settings)

    exec(code, {"SAC": small})
    made = BeautifulSoup((tmp_path / "report.html").read_text("utf-8"), "html.parser")
    assert made.h1.get_text().startswith("Alarm: ")
    assert diagnosis.CAUSES["entropy"] in [title.get_text() for title in made.select("h3")]
    assert len(made.select("h3")) >= 1 and "Try first" in made.select_one(".verdict").get_text()


def front_page(first, last):
    """Return the lines of code between two texts of the front page."""
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    block = front.partition(first)[2].partition(last)[0]
    return "\n".join(line[4:] for line in block.splitlines() if line.startswith("    "))


def test_the_lines_for_a_loop_of_ones_own(tmp_path, monkeypatch):
    """Step by step as they stand there: the page knows what whole episodes earned."""
    lines = front_page("If the training loop is your own", "Without `saw`").splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("watching.saw("))
    before, each, after = "\n".join(lines[:at]), lines[at], "\n".join(lines[at + 1 :])
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net, target = (torch.nn.Linear(2, 2) for _ in range(2))

    def targets(b):
        return b["rewards"] + 0.99 * (1 - b["dones"]) * target(b["next_observations"]).max(dim=1).values

    space, rng, rows = {"net": net, "target": target, "targets": targets}, np.random.default_rng(0), []
    exec(before, space)
    for step in range(60):
        obs, following = rng.normal(size=(2, 2)).astype(np.float32)
        rows.append((obs, int(rng.integers(2)), np.float32(1), np.float32(step % 6 == 5), following))
        told = dict(zip(("obs", "action", "reward", "terminated"), rows[-1], strict=False))
        exec(each, space | told | {"truncated": False})
    names = ("observations", "actions", "rewards", "dones", "next_observations")
    batch = {name: torch.as_tensor(np.array([row[k] for row in rows])) for k, name in enumerate(names)}
    exec(after, space | {"batch": batch, "step": 60})
    history = space["watching"].history
    earned = sum(0.99**k for k in range(6))
    assert history["start_return"].tolist() == pytest.approx([earned]) and history["after_ends"].tolist() == [0]
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_lines_for_an_agent_of_ours(tmp_path, monkeypatch):
    """Which stand further down: the ending with its reason, and the page."""
    code = front_page("Train with the kernel undone", "Inside stable-baselines3")
    code = code.replace("steps=3_000", "steps=1_100").replace(
        "PreQNConfig()", "PreQNConfig(hidden=(16,), batch_size=32)"
    )
    code, load = code.splitlines()[:-1], code.splitlines()[-1]
    assert load.startswith("preqn.PreQN.load(")  # of a file that nobody has written here
    monkeypatch.chdir(tmp_path)
    space = {"make": lambda: gymnasium.make("Pendulum-v1", max_episode_steps=30)}
    exec("\n".join(code), space)
    assert (space["run"].ending, space["run"].reason) == ("finished", "")
    page = BeautifulSoup((tmp_path / "report.html").read_text("utf-8"), "html.parser")
    assert diagnosis.CAUSES["no-target-network"] not in page.get_text() and page.h1.get_text().startswith("No alarm: ")
