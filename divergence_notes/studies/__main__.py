"""``python -m divergence_notes.studies list | run NAME | status [NAME]``.

What a command says and returns. The runs are done and written by `runner`; what they compute is the study's own module.
"""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType

from divergence_notes.studies import RESULTS, runner


def main(arguments: list[str] | None = None) -> int:
    """Return 0, 1 if a run failed or no cluster was reached, 2 if the command makes no sense, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    if options.command == "list":
        for name in runner.names():
            study = runner.find(name)
            print(f"{name}: {(study.__doc__ or '').strip().partition(chr(10))[0]}")
        return 0
    try:
        found = [runner.find(name) for name in ([options.name] if options.name else runner.names())]
        left_out = _left_out(found[0], options.without) if options.command == "run" else {}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.command == "run":
        return _run(found[0], options, left_out)
    for study in found:
        name = options.name or study.__name__.rpartition(".")[2]
        _report(study, name, options.results, each=options.name is not None)
    return 0


def _left_out(study: ModuleType, given: list[str]) -> dict[str, list[str]]:
    """Return the values to leave out of each parameter, given as KEY=VALUE."""
    found: dict[str, list[str]] = {}
    for each in given:
        key, _, value = each.partition("=")
        known = [str(value) for value in study.PARAMETERS.get(key, ())]
        if value not in known:
            raise ValueError(f"--without must be KEY=VALUE of {study.__name__}.PARAMETERS, got {each!r}")
        found.setdefault(key, []).append(value)
    return found


def _run(study: ModuleType, options: argparse.Namespace, left_out: dict[str, list[str]]) -> int:
    where = {"workers": options.workers, "scheduler": options.scheduler}
    try:
        failures = runner.run(study, results=options.results, without=left_out, **where)
    except OSError as error:
        print(f"no cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, the next start does the others", file=sys.stderr)
        return 130
    for name, error in failures.items():
        print(f"failed: {name}: {type(error).__name__}: {error}", file=sys.stderr)
    _report(study, options.name, options.results)
    return 1 if failures else 0


def _report(study: ModuleType, name: str, results: Path, *, each: bool = True) -> None:
    """Print what is finished, what is missing, run by run if asked, and what that costs on this machine."""
    runs, missing = list(runner.grid(study)), runner.missing(study, results)
    print(f"{name}: {len(runs) - len(missing)} of {len(runs)} runs are finished")
    if missing:
        cores = os.cpu_count() or 1
        factor, measured = runner.pace(study, results)
        cost = factor * sum(runner.seconds(study, parameters) for parameters in missing)
        done = f"by {measured} run{'s' if measured > 1 else ''} done here"
        source = done if measured else "by what the study says, as none was done here"
        print(f"{len(missing)} missing: about {_time(cost)} on one core, {_time(cost / cores)} on {cores}, {source}")
    for parameters in missing if each else ():
        begun = runner.checkpoint_path(study, parameters, results).exists()
        print(f"  {runner.result_path(study, parameters, results).stem}{' (begun)' if begun else ''}")
    planned = {runner.result_path(study, parameters, results) for parameters in runs}
    for path in sorted(set(runner.directory(study, results).glob("[!.]*.csv")) - planned):
        print(f"outside the grid, but read: {path.name}")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m divergence_notes.studies", description="Long experiments.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="name the studies")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    run = commands.add_parser("run", parents=[common], help="do the runs that are missing")
    name = {"metavar": "NAME", "help": "a study, or the dotted name of a module that is one"}
    run.add_argument("name", **name)
    left_out = "leave out, for now, the runs with this parameter; may be given again"
    run.add_argument("--without", action="append", default=[], metavar="KEY=VALUE", help=left_out)
    where = run.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_positive, metavar="N", help="processes; default: one for each core")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster, such as tcp://10.0.0.1:8786")
    left = commands.add_parser("status", parents=[common], help="say what is missing, and what it costs here")
    left.add_argument("name", nargs="?", **name)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
