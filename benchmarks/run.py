"""Measure, print the table, write results.json and README.md.

run.py                 everything
run.py --only preqn    one section of `SECTIONS`; the other numbers stay as they are
run.py --render        nothing: README.md is written again from results.json

Standard library only: the measured code runs in environments of its own, which this makes first.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import measure  # noqa: E402 (it is found by the path above)

HERE = Path(__file__).resolve().parent
MAIN, JAX = ".venv-bench", ".venv-bench-jax"
SIZES = (64, 256, 1024, 4096)
OURS = "divergence_notes"
PACKAGES = (
    "torch numpy scipy numba nngeometry asdfghjkl quantecon stable-baselines3 gymnasium mujoco neural-tangents jax"
).split()
SECTIONS = {
    "gram": ("gram",),
    "record": ("record",),
    "tabular": ("backup", "value iteration"),
    "preqn": ("update", "part of an update", "solve"),
}
"""What each module of this folder measures, in the order of the table."""

GOALS = [
    # (quantity, what, method, case, at least / at most, bound)
    ("ms", "gram", "torch.func", "n = 1024", ">=", 45),
    ("ms", "gram", "torch.func", "n = 4096", ">=", 55),
    ("mb", "gram", "torch.func", "n = 1024", ">=", 30),
    ("mb", "gram", "torch.func", "n = 4096", ">=", 18),
    ("ms", "gram", "nngeometry", "n = 1024", ">=", 1.5),
    ("ms", "gram", "asdl", "n = 1024", ">=", 1.2),
    ("ms", "gram", "nngeometry", "n = 4096", ">=", 2),
    ("ms", "gram", "asdl", "n = 4096", ">=", 2),
    ("ms", "gram", "neural-tangents", "n = 1024", ">=", 2),
    ("ms", "gram", "neural-tangents", "n = 64", ">=", 1 / 1.5),
    ("ms", "gram", "limit", "n = 4096", ">=", 1 / 2.2),
    ("MB", "gram", OURS, "n = 4096", "<=", 150),
    ("ms", "backup", "quantecon", "dense 1000 x 10", ">=", 1 / 1.2),
    ("ms", "backup", "quantecon", "sparse 10000 x 10", ">=", 1 / 1.2),
    ("ms", "value iteration", "quantecon", "sparse 10000 x 10", ">=", 20),
    ("ms", "update", "stable-baselines3, TD3", "256-256", ">=", 1 / 1.3),
    ("ms", "update", "stable-baselines3, TD3", "400-300", ">=", 1 / 1.3),
    *(
        ("ms", "update", "stable-baselines3, TD3", f"{widths}{activation}, policy every second", ">=", 1)
        for widths in ("256-256", "400-300")
        for activation in ("", ", sine")
    ),
    ("CPU ms", "record", OURS, "CnnPolicy, 128 transitions", "<=", 500),
    ("MB", "record", OURS, "CnnPolicy, 128 transitions", "<=", 314),
]
"""A ratio is the peer's number over ours of the same run: CPU time for `ms`, peak memory for `mb`. `CPU ms` and `MB`
are our own; 314 MB are 300 MiB."""

ABOUT = """# Benchmarks

Made by `make bench`, which installs the peers into environments of their own (`.venv-bench`, `.venv-bench-jax`),
measures ours and theirs in the same run, and writes `results.json` and this page. It took {minutes} minutes,
once the environments were there. The machine is never the same twice, so what counts are the ratios.

- CPU time of the process, one thread, the methods in turns in one process, medians. Peak memory is that of a fresh
  process over what it held before the call.
- *Gram*: K = J J^T of a tanh network 23-256-256-1 in float32, n random inputs. `torch.func` forms J by vmap(grad) and
  multiplies, as tutorials do. nngeometry and asdl (class-wise, Hadamard) use layer-wise products, as ours does: the
  closed form is not new. Against them we gain what symmetry and tiles give, and a pass without autograd, since this
  network is a chain of layers and activations. neural-tangents (structured
  derivatives, `vmap_axes=0`, compiled beforehand) runs in its own environment, because it does not import on a
  current jax; ours is measured there again beside it, up to n = 1024.
- *Limit*: the operations of one half of the symmetric products, inner dimensions 23 + 4 * 256, at the speed of a
  product of order 2048 in the same run. Its *times ours* is the share of the limit that we reach.
- *Record*: one record of the monitor, values, kernel and all, of a DQN with stable-baselines3's default policy on
  images, four frames of 84 x 84. The other row is the kernel of the same batch alone, J J^T with J from vmap(grad).
- *Backup*: one optimality backup in float64, `bellman.optimality_backup` and quantecon's `bellman_operator`.
- *Value iteration*: both guarantee a sup-norm error of 1e-6; `error` is what they reach, measured against an optimum
  that policy iteration found. The random graph mixes fast, which is what stopping on the span lives on; quantecon's
  modified policy iteration knows that rule too.
- *Update*: one `PreQN.update` beside one `TD3.train(gradient_steps=1)`, drawing the minibatch of 256 included. Hidden
  widths as given in all networks, with rectifiers; *sine* is the default activation of our Q, beside the same TD3.
  HalfCheetah-v5, 3000 random transitions in each buffer. Ten updates are timed together and divided by ten, because
  TD3 moves its policy and its targets at every second one only. TD3 trains two critics and keeps three target
  networks; ours has one Q and no target network, and watches 16 more transitions. The goal is at most 1.3 times
  their time. *Policy every second*: ours moves its policy at every second update too, and the goal is at most their
  time. *Trials*: step sizes that the line search tried, on average.
- *Part of an update*: what ours with rectifiers consists of, each part alone on one minibatch. `targets` are the TD
  targets, `policy` is the step of the policy; copies and the numbers that an update reports are in none.
- *Solve*: K z = delta for the kernel and the TD errors of one minibatch, drawn with replacement, so that K is
  singular. Ours is Cholesky with jitter in float32; the other two find the minimum-norm solution in float64,
  `preqn.solve` by eigh, rounded to float32, and LAPACK. *Residual*: |K z - delta| / |delta|, in float64.
- *Times ours*: the peer's number divided by ours of the same run; above 1 ours is smaller. *Difference*: largest
  deviation from ours, for K in units of max |K|.
"""


def ratio(rows, row, quantity):
    """Return the peer's number over ours in the same run, or None."""
    for own in rows:
        if own["method"] == OURS and all(own.get(key) == row.get(key) for key in ("what", "case", "run")):
            return row[quantity] / own[quantity] if quantity in row and quantity in own else None
    return None


def judge(rows):
    """Return (goal, value, met) for every goal; without such a row the value is None and the goal is not met."""
    verdicts = []
    for quantity, what, method, case, sign, bound in GOALS:
        value = None
        for row in rows:
            if (row["what"], row["method"], row["case"]) == (what, method, case):
                if quantity in ("ms", "mb"):
                    value = ratio(rows, row, quantity)
                elif row.get("run") == "torch":
                    value = row[{"CPU ms": "ms", "MB": "mb"}[quantity]]
        met = value is not None and (value >= bound if sign == ">=" else value <= bound)
        unit = {"ms": "times ours, CPU time", "mb": "times ours, memory"}.get(quantity, quantity)
        verdicts.append((f"{what}, {method}, {case}: {sign} {bound:.3g} {unit}", value, met))
    return verdicts


def cell(value, form=None):
    """Write a number with three digits or all before the point, or nothing."""
    return "" if value is None else (form or ("{:.0f}" if value >= 1000 else "{:.3g}")).format(value)


def table(rows):
    """Return the lines of the one table: ratios first, then what they are made of."""
    head = (
        "what",
        "case",
        "method",
        "times ours",
        "CPU ms",
        "repeats",
        "memory, times ours",
        "MB",
        "difference",
        "error",
        "trials",
        "residual",
    )
    lines = [head]
    for row in rows:
        own = row["method"] == OURS
        twin = " (beside neural-tangents)" if own and row.get("run") == "jax" else ""
        lines.append(
            (
                row["what"],
                row["case"],
                row["method"] + twin,
                "1" if own else cell(ratio(rows, row, "ms")),
                cell(row.get("ms")),
                cell(row.get("repeats"), "{}"),
                "1" if own and "mb" in row else cell(ratio(rows, row, "mb")),
                cell(row.get("mb")),
                "" if own else cell(row.get("difference"), "{:.0e}"),
                cell(row.get("error"), "{:.0e}"),
                cell(row.get("trials")),
                cell(row.get("residual"), "{:.0e}"),
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]


def render(results):
    """Return README.md."""
    machine, rows = results["machine"], results["rows"]
    verdicts = judge(rows)
    missed = [f"- {goal}; measured {cell(value) or 'nothing'}" for goal, value, met in verdicts if not met]
    met = [f"- {goal}; measured {cell(value)}" for goal, value, met in verdicts if met]
    ahead = [
        f"- {row['what']}, {row['case']}: {row['method']} takes {cell(share)} of our time"
        for row in rows
        if row["method"] not in (OURS, "limit") and (share := ratio(rows, row, "ms")) is not None and share < 1
    ]
    return "\n".join(
        [
            ABOUT.format(minutes=results["minutes"]),
            f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB, "
            f"{machine['system']}, Python {machine['python']}.",
            *(f"Measured again alone: {name}, {date}." for name, date in results.get("again", {}).items()),
            "",
            *(
                f"- `{name}`: {', '.join(f'{k} {v}' for k, v in versions.items())}."
                for name, versions in results["versions"].items()
            ),
            *results["left_out"],
            "",
            *table(rows),
            "",
            f"## Goals: {len(met)} met, {len(missed)} missed",
            "",
            *(["Missed:", "", *missed, ""] if missed else []),
            "Met:",
            "",
            *met,
            "",
            *(["## Where a peer is faster", "", *ahead, ""] if ahead else []),
        ]
    )


def measured(place, *arguments):
    """Run one module of this folder in an environment and return its rows."""
    command = [ROOT / place / "bin" / "python", "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | measure.ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def grams(place, run, sizes):
    """Return time and memory of all Gram matrices in one environment."""
    rows = []
    for n in sizes:
        for row in measured(place, "benchmarks.gram", "time", n):
            if row["method"] != "limit":
                row |= measured(place, "benchmarks.gram", "memory", n, row["method"])[0]
            rows.append(row | {"run": run})
        print(f"gram, {run}, n = {n}: done", flush=True)
    return rows


def machine():
    """Return what this runs on."""
    cpu = (
        re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        if Path("/proc/cpuinfo").exists()
        else None
    )
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(place):
    """Return the versions of what an environment measures."""
    code = "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    listed = json.loads(subprocess.check_output([ROOT / place / "bin" / "python", "-c", code], text=True))
    found = {name.replace("_", "-"): version for name, version in listed}
    return {name: found[name] for name in PACKAGES if name in found}


def environment(*arguments):
    """Make an environment, and say whether it is there."""
    return subprocess.run([sys.executable, ROOT / "tools" / "environment.py", *arguments]).returncode == 0


def section(name, second):
    """Return the rows of one section."""
    if name == "gram":
        return grams(MAIN, "torch", SIZES) + (grams(JAX, "jax", SIZES[:3]) if second else [])
    if name == "record":
        rows = [
            row | measured(MAIN, "benchmarks.record", "memory", row["method"])[0] | {"run": "torch"}
            for row in measured(MAIN, "benchmarks.record", "time")
        ]
    else:
        rows = measured(MAIN, f"benchmarks.{name}")
    print(f"{', '.join(SECTIONS[name])}: done", flush=True)
    return rows


def belong(old, new):
    """Return whether two results are of one machine and of the same versions; the new one may have more packages."""
    return old["machine"] == new["machine"] and all(
        found.items() <= new["versions"].get(place, {}).items() for place, found in old["versions"].items()
    )


def joined(old, new, name):
    """Return the old results with one section, its date and the versions from the new ones."""
    kept = [row for row in old["rows"] if row["what"] not in SECTIONS[name]]
    order = [what for whats in SECTIONS.values() for what in whats]
    rows = sorted(kept + new["rows"], key=lambda row: order.index(row["what"]))
    again = old.get("again", {}) | {name: new["date"]}
    return old | {"versions": new["versions"], "again": again, "rows": rows}


def main(only=None):
    """Measure, print and write."""
    if not environment(MAIN, "benchmarks/requirements.txt", "benchmarks/requirements-bare.txt"):
        sys.exit("The peers could not be installed: see what pip says above.")
    second = environment(JAX, "benchmarks/requirements-jax.txt")
    start = datetime.datetime.now(datetime.UTC)
    results = {
        "date": f"{start:%Y-%m-%d}",
        "minutes": None,
        "machine": machine(),
        "versions": {place: versions(place) for place in [MAIN, JAX][: 1 + second]},
        "left_out": [] if second else ["neural-tangents is left out: its environment could not be made."],
        "rows": [],
    }
    if only:
        old = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
        if not belong(old, results):
            sys.exit("results.json is of another machine or of other versions: measure everything.")
        results = joined(old, results | {"rows": section(only, second)}, only)
    else:
        results["rows"] = [row for name in SECTIONS for row in section(name, second)]
        results["minutes"] = round((datetime.datetime.now(datetime.UTC) - start).total_seconds() / 60)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write(results)
    print("\n".join(table(results["rows"])))
    for goal, value, met in judge(results["rows"]):
        print(f"{'met' if met else 'MISSED':6}  {goal}; measured {cell(value) or 'nothing'}")


def write(results):
    """Write README.md."""
    (HERE / "README.md").write_text(render(results), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure everything, unless told otherwise.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--only", choices=SECTIONS, help="measure one section and keep the other numbers")
    choice.add_argument("--render", action="store_true", help="measure nothing, write README.md from results.json")
    given = parser.parse_args()
    if given.render:
        write(json.loads((HERE / "results.json").read_text(encoding="utf-8")))
    else:
        main(given.only)
