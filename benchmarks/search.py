"""Benchmark of how fast a search finds the Pareto front, without training anything.

Full-fidelity tables (one row, one trained network)::

    python benchmarks/search.py --tables DIR --table NAME --costs params --seeds 10 --trials 200 --json FILE

Learning curves of the LCBench surrogate, with work counted in epochs::

    python benchmarks/search.py --tables DIR --lcbench 3945,7593 --seeds 10 --budget 2080 --json FILE

Students and recipes together, from recorded trainings, with work counted in epochs of the mean student::

    python benchmarks/search.py --recorded digits --seeds 20 --budget 90 --json FILE

The script prints hypervolume regret (mean ± standard error over seeds) by trials or epochs, and mean ranks. For LCBench
it also prints how many times fewer epochs a method needs to reach the regret of random search after 100 full trainings.
The JSON holds ``{"results":
[{"table", "costs", "method", "seed", "regret": {"25": …}, "seconds", "curve": [[epochs, trials, regret], …]}]}``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")

import methods
from recorded import COSTS, Recorded
from tables import LCBench, Problem, Table
from variants import PATCHES, WITHOUT_BOUND

DEFAULT = "autodistill,autodistill-norungs,optuna-gp,optuna-tpe,optuna-nsga2,random,random-sh,moasha,moasha-fixed"
TABLE_ABLATION = ["autodistill-norungs", "without-known-costs", "without-other-costs", *PATCHES]
LCBENCH_ABLATION = ["autodistill", "without-rung-rule", "autodistill-norungs"]
TRIAL_MARKS = (10, 25, 50, 100, 200, 400, 800)
TRAINING_MARKS = (5, 10, 20, 40, 100, 200)
_MARKS = {"recorded": (2.5, 5, 10, 20, 40)}
RANDOM_TRAININGS = 100
_MARK = {k: str(RANDOM_TRAININGS * p.rungs[-1]) for k, p in (("lcbench", LCBench), ("recorded", Recorded))}
"""Work of 100 full trainings, by kind of problem, where work is counted in epochs."""


def main() -> None:
    args = _arguments()
    problems = _problems(args)
    # Run seed by seed: an interrupted run has then compared all methods on the first seeds.
    jobs = [(args, name, method, seed) for seed in args.seeds for name in problems for method in args.methods]
    finished = _finished(args)
    results = []
    with ProcessPoolExecutor(max_workers=args.jobs) as workers:
        waiting = [finished.get(_key(job)) or workers.submit(run_one, job) for job in jobs]
        for one in waiting:
            known = isinstance(one, dict)
            result = one if isinstance(one, dict) else one.result()
            results.append(result)
            if args.cache and not known:
                with args.cache.open("a") as file:
                    file.write(json.dumps(result) + "\n")
            if not known:
                last = list(result["regret"].items())[-1:]
                print(f"{result['table']} {result['method']} seed {result['seed']}: {last}", file=sys.stderr)
            if args.json:
                args.json.write_text(json.dumps({"results": results}, indent=1))
    print(report(results))
    if args.plot:
        plot(results, args.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", type=Path, default=Path(), help="folder with NAME.json and NAME.csv.gz, and lcbench/"
    )
    parser.add_argument("--recorded", default="", help="names in benchmarks/data, comma-separated")
    parser.add_argument("--table", default="", help="table names, comma-separated")
    parser.add_argument(
        "--costs", default="", help="cost columns that are objectives, comma-separated; default: one problem per column"
    )
    parser.add_argument("--lcbench", default="", help="OpenML task numbers, comma-separated")
    parser.add_argument("--unit", choices=("epochs", "seconds"), default="epochs", help="unit of LCBench's work")
    parser.add_argument("--methods", default=DEFAULT, help="comma-separated")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="first seed; use another range to check on unseen seeds"
    )
    parser.add_argument("--trials", type=int, default=200, help="full trainings of each run")
    parser.add_argument("--budget", type=float, help="epochs of each run; default: --trials full trainings")
    parser.add_argument(
        "--floor",
        type=float,
        help="quantile of a table's accuracy below which no network counts; a constraint for the front sampler",
    )
    parser.add_argument("--ablation", action="store_true", help="run the front sampler with each part switched off")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 40 trainings, without optuna-gp")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--cache", type=Path, help="file of finished runs, JSON lines; the same command continues from it"
    )
    parser.add_argument(
        "--rerun", default="", help="methods whose finished runs in --cache are outdated, comma-separated"
    )
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.ablation:
        chosen = LCBENCH_ABLATION if args.lcbench or args.recorded else TABLE_ABLATION
        if args.unit == "seconds":
            chosen = ["autodistill", "without-cost-awareness"]
        args.methods = ",".join(m for m in chosen if m != WITHOUT_BOUND or args.floor is not None)
    args.methods, args.rerun = args.methods.split(","), args.rerun.split(",")
    if args.quick:
        args.seeds, args.trials = min(args.seeds, 2), min(args.trials, 40)
        args.methods = [m for m in args.methods if m != "optuna-gp"]
    unknown = [m for m in args.methods if m not in methods.METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]!r}; allowed: {', '.join(methods.METHODS)}")
    if args.floor is not None and not (0 <= args.floor < 1 and args.table):
        parser.error("--floor is a quantile of a --table: from 0 to below 1")
    if not args.table and not args.lcbench and not args.recorded:
        parser.error("name a --table, an --lcbench task or --recorded trainings")
    args.methods = [m for m in args.methods if _available(m)]
    args.seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    return args


def _available(method: str) -> bool:
    if not method.startswith("moasha"):
        return True
    try:
        import syne_tune  # noqa: F401
    except ImportError:
        print(f"skipping {method}: syne-tune is not installed (pip install syne-tune)", file=sys.stderr)
        return False
    return True


def _problems(args: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return ``("table", name, costs[, floor])``, ``("lcbench", task[, unit])`` and ``("recorded", name)`` tuples."""
    out: list[tuple[str, ...]] = []
    floor = () if args.floor is None else (str(args.floor),)
    for name in filter(None, args.table.split(",")):
        every = json.loads((args.tables / f"{name}.json").read_text())["costs"]
        out += [("table", name, cost, *floor) for cost in ([args.costs] if args.costs else every)]
    unit = () if args.unit == "epochs" else (args.unit,)
    out += [("lcbench", task, *unit) for task in filter(None, args.lcbench.split(","))]
    return out + [("recorded", name) for name in filter(None, args.recorded.split(","))]


_loaded: dict[tuple[str, ...], Problem] = {}


Job = tuple[argparse.Namespace, tuple[str, ...], str, int]


def _key(job: Job) -> tuple[Any, ...]:
    """Return the identity of a run, including its budget."""
    args, name, method, seed = job
    costs = name[2] if name[0] == "table" else ",".join(COSTS) if name[0] == "recorded" else "params"
    table = ", floor ".join(name[1::2]) if name[0] == "table" else "_".join(name)
    return table, costs, method, seed, _budget(args, _RUNGS[name[0]])


def _finished(args: argparse.Namespace) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Read runs that earlier commands finished with the same budget; the newest of equal ones."""
    if args.cache is None or not args.cache.exists():
        return {}
    runs = [json.loads(line) for line in args.cache.read_text().splitlines()]
    kept = [run for run in runs if run["method"] not in args.rerun]
    return {(r["table"], r["costs"], r["method"], r["seed"], r["budget"]): r for r in kept}


_RUNGS = {"table": Table.rungs, "lcbench": LCBench.rungs, "recorded": Recorded.rungs}


def _budget(args: argparse.Namespace, rungs: tuple[int, ...]) -> float:
    return float(args.budget or args.trials * rungs[-1])


def run_one(job: Job) -> dict[str, Any]:
    """Run one method with one seed. The problem is loaded once per process."""
    args, name, method, seed = job
    if name not in _loaded:
        _loaded[name] = _load(args.tables, name)
    problem = _loaded[name]
    full = problem.rungs[-1]
    budget = _budget(args, problem.rungs)
    trace = methods.run(method, problem, seed, budget)
    marks = TRIAL_MARKS if full == 1 else [round(m * full) for m in _MARKS.get(name[0], TRAINING_MARKS)]
    return {
        "table": problem.name,
        "costs": ",".join(problem.costs_names),
        "method": method,
        "seed": seed,
        "regret": {str(mark): trace.regret_at(mark) for mark in marks if mark <= budget},
        "budget": budget,
        "seconds": round(trace.seconds, 3),
        "trials": trace.trials,
        "curve": _steps(trace.curve),
        "complete_grid": problem.complete,
    }


def _load(tables: Path, name: tuple[str, ...]) -> Problem:
    if name[0] == "recorded":
        return Recorded(name[1])
    if name[0] == "lcbench":
        return LCBench(tables / "lcbench", *name[1:])
    return Table(tables, name[1], name[2].split(","), *map(float, name[3:]))


def _steps(curve: list[tuple[float, int, float]]) -> list[list[float]]:
    """Return the points of a curve at which the regret falls."""
    steps: list[list[float]] = []
    for spent, trials, regret in curve:
        if not steps or round(regret, 6) < steps[-1][2]:
            steps.append([round(spent, 3), trials, round(regret, 6)])
    return steps


def report(results: list[dict[str, Any]]) -> str:
    """Format a table of regret per problem, then the summaries over all problems."""
    lines = []
    problems = list(dict.fromkeys((r["table"], r["costs"]) for r in results))
    chosen = list(dict.fromkeys(r["method"] for r in results))
    means: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for table, costs in problems:
        here = [r for r in results if (r["table"], r["costs"]) == (table, costs)]
        marks = list(here[0]["regret"])
        note = "" if here[0]["complete_grid"] else " (incomplete table: only listed rows count as trials)"
        lines += [f"\n{table}, accuracy x {costs}: hypervolume regret{note}", _row("", [*marks, "ms/trial"])]
        for method in chosen:
            rows = [r for r in here if r["method"] == method]
            cells = []
            for mark in marks:
                values = np.array([r["regret"][mark] for r in rows])
                means[mark][method].append(float(values.mean()))
                error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
                cells.append(f"{values.mean():.3f}±{error:.3f}")
            cost = np.mean([1000 * r["seconds"] / max(r["trials"], 1) for r in rows])
            lines.append(_row(method, [*cells, f"{cost:.0f}"]))
    for title, combine in (("geometric mean of regret", _geometric), ("mean rank", _ranks)):
        lines += [f"\n{title} over {len(problems)} problems", _row("", list(means))]
        table_of = {mark: combine(means[mark], chosen) for mark in means}
        lines += [_row(m, [f"{table_of[mark][m]:.3f}" for mark in means]) for m in chosen]
    return "\n".join(lines + _ratios(means, chosen) + _speedups(results, problems, chosen))


def _ratios(means: dict[str, dict[str, list[float]]], chosen: list[str]) -> list[str]:
    """Format the regret of our methods divided by that of the best baseline: geometric mean and worst problem."""
    baselines = [m for m in chosen if not m.startswith(("autodistill", "without-"))]
    ours = [m for m in chosen if m not in baselines]
    if not baselines or not ours:
        return []
    lines = ["\nregret over that of the best baseline: geometric mean (worst single problem)", _row("", list(means))]
    for method in ours:
        cells = []
        for mark in means:
            geometric = _geometric(means[mark], chosen)
            best = np.min([means[mark][m] for m in baselines], axis=0)
            worst = np.max(np.array(means[mark][method]) / np.maximum(best, 1e-4))
            cells.append(f"{geometric[method] / min(geometric[m] for m in baselines):.2f} ({worst:.2f})")
        lines.append(_row(method, cells))
    return lines


def _row(name: str, cells: list[str]) -> str:
    return f"{name:22s}" + "".join(f"{cell:>14s}" for cell in cells)


def _geometric(means: dict[str, list[float]], chosen: list[str]) -> dict[str, float]:
    return {m: float(np.exp(np.mean(np.log(np.maximum(means[m], 1e-4))))) for m in chosen}


def _ranks(means: dict[str, list[float]], chosen: list[str]) -> dict[str, float]:
    table = np.array([means[m] for m in chosen])
    ranks = (table[:, None, :] > table[None, :, :]).sum(axis=1) + 1.0
    return dict(zip(chosen, ranks.mean(axis=1).tolist(), strict=True))


def _speedups(results: list[dict[str, Any]], problems: list[Any], chosen: list[str]) -> list[str]:
    """Format how much less work each method needs to reach the regret of random search after 100 full trainings."""
    factors: dict[str, list[float]] = defaultdict(list)
    for problem in problems:
        here = [r for r in results if (r["table"], r["costs"]) == problem]
        mark = _MARK.get(problem[0].split("_")[0], str(RANDOM_TRAININGS))
        base = [r["regret"][mark] for r in here if r["method"] == "random" and mark in r["regret"]]
        if not base:
            continue
        target, spend = np.mean(base), float(mark)
        for method in chosen:
            curves = [r["curve"] for r in here if r["method"] == method]
            reached = [next((c[0] for c in curve if c[2] <= target), np.inf) for curve in curves]
            factors[method].append(float(spend / np.median(reached)))
    if not factors:
        return []
    lines = [f"\ntimes less spend than random needs for {RANDOM_TRAININGS} full trainings, to the same regret"]
    lines.append(_row("", ["median", "worst", "best"]))
    for m in chosen:
        cells = [f"{f(factors[m]):.1f}" for f in (np.median, np.min, np.max)]
        lines.append(_row(m, cells))
    return lines


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw mean regret against work, one panel per problem."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    problems = list(dict.fromkeys((r["table"], r["costs"]) for r in results))
    figure, axes = pyplot.subplots(1, len(problems), figsize=(4.2 * len(problems), 3.6), squeeze=False)
    for axis, problem in zip(axes[0], problems, strict=True):
        here = [r for r in results if (r["table"], r["costs"]) == problem]
        limit = max(c[0] for r in here for c in r["curve"])
        at = np.geomspace(limit / 40, limit, 60)
        for method in dict.fromkeys(r["method"] for r in here):
            curves = [r["curve"] for r in here if r["method"] == method]
            values = [[next((c[2] for c in reversed(curve) if c[0] <= x), 1.0) for x in at] for curve in curves]
            axis.plot(at, np.mean(values, axis=0), label=method)
        axis.set(xscale="log", yscale="log", title=f"{problem[0]}\n{problem[1]}", xlabel="spend (epochs or trainings)")
    axes[0][0].set_ylabel("hypervolume regret")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
