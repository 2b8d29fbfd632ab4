"""``python -m divergence_notes.studies list | run NAME | missing NAME``.

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
        study = runner.find(options.name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return _run(study, options) if options.command == "run" else _missing(study, options)


def _run(study: ModuleType, options: argparse.Namespace) -> int:
    try:
        failures = runner.run(study, results=options.results, workers=options.workers, scheduler=options.scheduler)
    except OSError as error:
        print(f"no cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, the next start does the others", file=sys.stderr)
        return 130
    for name, error in failures.items():
        print(f"failed: {name}: {type(error).__name__}: {error}", file=sys.stderr)
    _missing(study, options)
    return 1 if failures else 0


def _missing(study: ModuleType, options: argparse.Namespace) -> int:
    runs, missing = list(runner.grid(study)), runner.missing(study, options.results)
    print(f"{options.name}: {len(runs) - len(missing)} of {len(runs)} runs are finished")
    if missing:
        cores = os.cpu_count() or 1
        cost = len(missing) * study.SECONDS
        print(f"{len(missing)} missing: about {_time(cost)} on one core, {_time(cost / cores)} on {cores}")
        for parameters in missing:
            print(f"  {runner.result_path(study, parameters, options.results).stem}")
    planned = {runner.result_path(study, parameters, options.results) for parameters in runs}
    for path in sorted(set(runner.directory(study, options.results).glob("[!.]*.csv")) - planned):
        print(f"outside the grid, but read: {path.name}")
    return 0


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m divergence_notes.studies", description="Long experiments.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="name the studies")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name", metavar="NAME", help="a study, or the dotted name of a module that is one")
    common.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    run = commands.add_parser("run", parents=[common], help="do the runs that are missing")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_positive, metavar="N", help="processes; default: one for each core")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster, such as tcp://10.0.0.1:8786")
    commands.add_parser("missing", parents=[common], help="say which runs are missing, and what they will cost")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
