"""One file about one run: the verdict, why, what to try, and the curves, from the log that a monitor wrote.

What is wrong is found by `diagnosis`, what the words mean stands in `returns` and `probe`, and the curves are drawn by
`plotting`. Here a log is read, whatever state it was left in, and put on a page that needs nothing beside it.
"""

import argparse
import csv
import io
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import __version__, _files, diagnosis, returns
from divergence_notes._extras import needs

with needs("monitor"):
    import jinja2

    from divergence_notes import probe
    from divergence_notes.plotting import reports

if TYPE_CHECKING:
    import pandas

BOOK = "https://divergence-notes.github.io/divergence-notes/latest/book/"
"""Where the pages lie to which a report leads."""

_CURVES = ("max_q", "overestimation", "td_error", "gradient_norm", "value_churn", "dormant", "effective_rank")
_POINTS = 300
_PACKAGES = ("torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy", "matplotlib")


@dataclass(frozen=True)
class Summary:
    """What a log says in a few words."""

    state: str
    """"alarm" if the last record has one, "past alarm" if an earlier one has, "no alarm", or "no record"."""
    word: str
    """The verdict of the last record, or, after an alarm that has stopped, of the last one with an alarm."""
    meaning: str
    """What the word means, as `returns.VERDICTS` has it."""
    when: str
    """At which records there was an alarm, in a sentence."""
    findings: list[diagnosis.Finding]
    """What is probably wrong, the likeliest first."""

    @property
    def headline(self) -> str:
        """Return the first line of a report."""
        first = {"alarm": "Alarm", "past alarm": "There was an alarm", "no record": "No record"}
        return f"{first.get(self.state, 'No alarm')}: {self.word}"


def read(path: str | Path) -> "tuple[pandas.DataFrame, list[str]]":
    """Read the log of a run, as far as it was written.

    Parameters
    ----------
    path : path
        A file of comma-separated values: ``history.to_csv(path)``, or ``progress.csv`` of the logger of
        stable-baselines3.

    Returns
    -------
    log : DataFrame
        As `records` returns it.
    notes : list of str
        What was left out, in sentences.

    Raises
    ------
    ValueError
        If there are columns, and none of them is one of a record.
    OSError
        If the file cannot be read.
    """
    import pandas

    text = Path(path).read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "")
    notes = []
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        notes.append("The last line was not written to its end and is left out.")
    while text.count('"') % 2:  # cut off within a text of several lines
        text = text[: text.rfind("\n", 0, -1) + 1]
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        raise ValueError(f"log must be comma-separated values, {path} is not: {error}") from None
    if not rows:
        return records(pandas.DataFrame()), notes
    names, whole = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if len(whole) < len(rows) - 1:
        notes.append(f"{len(rows) - 1 - len(whole)} lines have not as many fields as the first and are left out.")
    table = pandas.DataFrame({name: [row[k] for row in whole] for k, name in enumerate(names)}, dtype=object)
    log = records(table)
    runs = int((np.diff(log["step"]) < 0).sum()) if len(log) else 0
    if runs:
        notes.append(f"Steps begin anew {runs} {'time' if runs == 1 else 'times'}: this is about the last run.")
        log = log.iloc[int(np.flatnonzero(np.diff(log["step"]) < 0)[-1]) + 1 :].reset_index(drop=True)
    return log, notes


def records(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the records of a table: the columns of `probe.COLUMNS` that it has, by these names.

    Parameters
    ----------
    table : DataFrame
        With or without the prefix ``divergence/``; other rows and columns may stand in between. Steps may be its index.

    Returns
    -------
    DataFrame
        Numbers are floats, ``alarm`` is bool. It has ``step``, ``alarm``, ``verdict`` and ``status`` in any case.

    Raises
    ------
    ValueError
        If there are columns, and none of them is one of a record.
    """
    import pandas

    indexed = table.index.name == "step" and "step" not in table  # as by `set_index("step")`
    table = table.reset_index(drop=not indexed)
    columns = {str(name).strip().removeprefix("divergence/"): table[name] for name in table.columns}
    known = {name: column for name, column in columns.items() if name in probe.COLUMNS and name != "step"}
    if not known and len(table.columns):
        some = ", ".join(repr(str(name)[:40]) for name in list(table.columns)[:5])
        raise ValueError(f"log must have columns of a record, such as max_q or divergence/max_q, got {some}")
    steps = columns.get("step", columns.get("time/total_timesteps", pandas.Series(range(len(table)))))
    log = pandas.DataFrame({"step": _numbers(steps)})
    for name, column in known.items():
        read = diagnosis.alarms if name == "alarm" else _words if name in probe.WORDS else _numbers
        log[name] = read(column)
    if known:
        numbers = [name for name in known if name not in probe.WORDS]
        words = [name for name in known if name in probe.WORDS]
        log = log[log[numbers].notna().any(axis=1) | (log[words] != "").any(axis=1)].reset_index(drop=True)
    for name, missing in (("alarm", 0.0), ("verdict", ""), ("status", "")):
        if name not in log:
            log[name] = pandas.Series([missing] * len(log), dtype=object if isinstance(missing, str) else float)
    log["alarm"] = (log["alarm"] > 0) | log["verdict"].isin(returns.ALARMING)
    return log


def _numbers(column: "pandas.Series") -> "pandas.Series":
    import pandas

    truth = {"True": 1.0, "False": 0.0}
    given = column.map(lambda value: truth.get(value, value) if isinstance(value, str) else value)
    return pandas.to_numeric(given, errors="coerce").astype(float)


def _words(column: "pandas.Series") -> "pandas.Series":
    return column.map(lambda value: value if isinstance(value, str) else "")


def summary(log: "pandas.DataFrame", settings: Mapping[str, Any] | None = None) -> Summary:
    """Return what a log says in a few words.

    Parameters
    ----------
    log : DataFrame
        Of `records`, or the history of a callback or a probe.
    settings : mapping, optional
        As `diagnosis.diagnose` reads them.

    Returns
    -------
    Summary
    """
    return _summary(records(log), settings)


def _summary(log: "pandas.DataFrame", settings: Mapping[str, Any] | None) -> Summary:
    if not len(log):
        meaning = "the run was not watched, or it ended before the first record"
        return Summary("no record", "nothing is known", meaning, "The log holds no record.", [])
    findings = diagnosis.diagnose(log, settings) if "max_q" in log else []
    alarm = log["alarm"].to_numpy()
    k = int(np.flatnonzero(alarm)[-1]) if alarm.any() else len(log) - 1
    word = log["verdict"][k] or ("an alarm, the log does not say which" if alarm.any() else "unknown")
    when = f"There is none in {len(log)} {_plural('record', len(log))}."
    if alarm.any():
        first, last = (log["step"][int(place)] for place in np.flatnonzero(alarm)[[0, -1]])
        kinds = log["verdict"][alarm].replace("", "without a word").value_counts()
        kinds = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" if len(kinds) > 1 else ""
        when = f"At {int(alarm.sum())} of {len(log)} {_plural('record', len(log))}{kinds}, from step {first:.0f} "
        when += (
            "to the last one." if alarm[-1] else f"to step {last:.0f}; the last record, at {log['step'].iloc[-1]:.0f}, "
        )
        when += "" if alarm[-1] else f"says: {log['verdict'].iloc[-1] or 'no alarm'}."
    state = "alarm" if alarm[-1] else "past alarm" if alarm.any() else "no alarm"
    return Summary(state, word, returns.VERDICTS.get(word, "see the curves"), when, findings)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def text(told: Summary) -> str:
    """Return a summary as plain paragraphs, for a terminal or a logger.

    Parameters
    ----------
    told : Summary
        Of a log.

    Returns
    -------
    str
        A line for the verdict and, for each finding, what is seen, why, and what to try.
    """
    parts = [f"{told.headline}: {told.meaning}. {told.when}"]
    for finding in told.findings:
        title = diagnosis.CAUSES[finding.name]
        parts.append(f"{title}. {finding.seen} {finding.why} Try first: {finding.remedy} ({_address(finding)})")
    return "\n\n".join(parts)


def _address(finding: diagnosis.Finding) -> str:
    page, _, anchor = finding.chapter.partition("#")
    return f"{BOOK}{page}.html" + (f"#{anchor}" if anchor else "")


def html(
    log: "pandas.DataFrame",
    *,
    title: str,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the report of a log as a page that needs nothing beside it.

    Parameters
    ----------
    log : DataFrame
        The history of a callback or a probe, or what `read` returns.
    title : str
        What the run is called.
    settings : mapping, optional
        Settings of the run: shown, and read by `diagnosis.diagnose`.
    notes : sequence of str
        What else the reader must know of the log.

    Returns
    -------
    str
        HTML without scripts, which asks no host for anything, of a bounded size, light or dark as the reader's system
        is.
    """
    log = records(log)
    return _page(log, _summary(log, settings), title, settings, notes)


def _page(
    log: "pandas.DataFrame", told: Summary, title: str, settings: Mapping[str, Any] | None, notes: Sequence[str]
) -> str:
    moment = _moment(log, told)
    asked = dict.fromkeys((diagnosis.HEADLINE, *_CURVES))
    names = [name for name in asked if name in log and np.isfinite(log[name]).any()]
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(Path(__file__).with_name("report.jinja").read_text(encoding="utf-8")).render(
        title=title,
        told=told,
        causes=diagnosis.CAUSES,
        address=_address,
        moment=moment,
        curves=[_curve(log, name, moment) for name in names],
        last=_last(log),
        settings={str(key): _shown(value) for key, value in (settings or {}).items()},
        notes=notes,
        versions=_versions(),
    )


def _moment(log: "pandas.DataFrame", told: Summary) -> float | None:
    """Return the step at which something was first seen: of the likeliest finding, or else of the first alarm."""
    if told.findings:
        since = told.findings[0].since
        counted = log["updates"] if "updates" in log and np.isfinite(log["updates"]).any() else log["step"]
        at = log["step"][counted >= since]
        return float(at.iloc[0]) if len(at) else None
    at = log["step"][log["alarm"]]
    return float(at.iloc[0]) if len(at) else None


def _curve(log: "pandas.DataFrame", name: str, moment: float | None) -> dict[str, Any]:
    meaning = probe.COLUMNS[name].replace("`", "")
    values = log[name].replace([np.inf, -np.inf], np.nan)
    first, last = values.dropna().iloc[[0, -1]]
    top = values.idxmax()
    said = f"From {first:.3g} at first to {last:.3g} at last; "
    said += f"the largest is {values[top]:.3g}, at step {log['step'][top]:.0f}."
    lost = int(values.isna().sum())
    said += f" At {lost} of {len(log)} records it is not known or not finite." if lost else ""
    said += f" A line marks step {moment:.0f}." if moment is not None else ""
    drawn = _thinned(log.assign(**{name: values}), name)
    svg = reports.history_svg(
        drawn,
        name,
        name=f"curve-{name.replace('_', '-')}",
        title=f"{name} over the steps",
        description=said,
        moment=moment,
    )
    return {"name": name, "meaning": meaning, "said": said, "svg": svg}


def _thinned(log: "pandas.DataFrame", name: str) -> "pandas.DataFrame":
    """Return few records between which the curve looks the same: the extremes of each stretch, first and last."""
    if len(log) <= _POINTS:
        return log
    values, kept = log[name].to_numpy(), {0, len(log) - 1}
    for stretch in np.array_split(np.arange(len(log)), _POINTS // 3):
        known = stretch[np.isfinite(values[stretch])]
        kept |= {int(known[pick(values[known])]) for pick in (np.argmin, np.argmax) if len(known)}
    for words in ("alarm", "status"):
        marked = log["alarm"] if words == "alarm" else log["status"] == "diverged"
        kept |= set(np.flatnonzero(marked)[:1].tolist())
    return log.iloc[sorted(kept)]


def _last(log: "pandas.DataFrame") -> list[tuple[str, str, str]]:
    """Return name, value and meaning of each column of the last record."""
    if not len(log):
        return []
    return [
        (name, _shown(log[name].iloc[-1]), meaning.replace("`", ""))
        for name, meaning in probe.COLUMNS.items()
        if name in log and not (isinstance(log[name].iloc[-1], str) and not log[name].iloc[-1])
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _versions() -> dict[str, str]:
    found = {"divergence-notes": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(
    path: str | Path,
    run: Any,
    *,
    title: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Summary:
    """Write the report of a run into a file, whole or not at all.

    Parameters
    ----------
    path : path
        Of the file; what stands there is replaced.
    run : DataFrame, Probe, DivergenceCallback or path
        A history, what has one, or the log of a run.
    title : str, optional
        What the run is called; by default as the folder and the file of its log.
    settings : mapping, optional
        As in `html`; by default those that `run` has.

    Returns
    -------
    Summary
        What the report says.

    Raises
    ------
    TypeError
        If `run` is none of these.
    ValueError
        If the log has no column of a record, or `path` is the log.
    OSError
        If a file cannot be read or written.
    """
    path = Path(path)
    if isinstance(run, str | Path) and path.exists() and Path(run).exists() and path.samefile(run):
        raise ValueError(f"path must be another file than the log, got {path}")
    import pandas

    notes: list[str] = []
    if isinstance(run, str | Path):
        log, notes = read(run)
        title = title or "/".join(Path(run).absolute().parts[-2:])
    elif isinstance(run, pandas.DataFrame):
        log = run
    elif hasattr(run, "history"):
        log, settings = run.history, settings or getattr(run, "settings", None)
    else:
        raise TypeError(f"run must be a history, what has one, or the path of a log, got {type(run).__name__}")
    log = records(log)
    told = _summary(log, settings)
    put(path, _page(log, told, title or "A run", settings, notes))
    return told


def put(path: Path, page: str) -> None:
    """Write a page into a file, whole or not at all.

    Parameters
    ----------
    path : Path
        What stands there is replaced.
    page : str
        As `html` returns it.
    """
    _files.write(path, lambda file: file.write(page.encode()))


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 if the log cannot be read or the command makes no sense.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the command line by default.

    Returns
    -------
    int
    """
    parser = argparse.ArgumentParser(
        prog="python -m divergence_notes.monitor", description="Make a report of a run from its log."
    )
    parser.add_argument("log", type=Path, help="a csv: history.to_csv(...), or progress.csv of stable-baselines3")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the log's name, ending in .html")
    parser.add_argument("--title", help="what the run is called; default: folder and name of the log")
    known = f"a setting of the run, such as gamma=0.99; may be given again. Read are {', '.join(diagnosis.SETTINGS)}"
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help=known)
    options = parser.parse_args(arguments)
    output = options.output or options.log.with_suffix(".html")
    try:
        told = write(output, options.log, title=options.title, settings=dict(options.set))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{text(told)}\n\nThe report is {output.absolute()}")
    return 0


def _setting(given: str) -> tuple[str, Any]:
    key, equals, value = given.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, got {given!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
