"""The `dl-runs` command: list, show, evaluate, use, compare and report runs. torch is imported only if needed."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from dlrun.errors import UserError
from dlrun.output.folders import find_run
from dlrun.runs import arguments
from dlrun.runs.command import Command, run_command
from dlrun.runs.completion import completed, completion_arguments

USAGE = """dl-runs: list, evaluate, use and compare runs

  dl-runs list [KEY=PATTERN ...]    a table; --sort COLUMN, --reverse,
                                    --limit N, --json
  dl-runs show RUN                  a run's facts and results; --config, --json
  dl-runs evaluate RUN [split=all] [data=NAME data.KEY=VALUE ...]
  dl-runs predict RUN INPUT ...     images, texts, rows or a .csv, - for
                                    standard input; --samples, --episodes
  dl-runs explain RUN [INPUT ...]   feature maps, saliency and Grad-CAM of an
                                    image; the gates of an LSTM over a text
  dl-runs export RUN --format pt2   or onnx, safetensors, state_dict; checked
                                    on real samples before it is kept
  dl-runs compare RUN RUN ...       their curves in one image, and the
                                    differences between their configs
  dl-runs ensemble SWEEP|RUN ...    the mean of their predictions, evaluated,
                                    or with --export FILE as one graph
  dl-runs draw RUN                  the plots again, from the run's folder
  dl-runs report RUN|SWEEP          one self-contained HTML file
  dl-runs baseline RUN              tables: gradient boosting, a linear and the
                                    trivial model on the same splits
  dl-runs importance RUN            tables: how much each column matters
  dl-runs watch [RUN|SWEEP]         a live view in the terminal
  dl-runs ui                        a live view in the browser; --port N

RUN is a run's folder, or `last` for the most recently started run.
dl-runs COMMAND --help shows the options.
completion of dl-run, dl-runs and dl-data: eval "$(dl-runs completion bash)",
  the same with zsh; dl-runs completion fish | source"""


def main() -> None:
    """Run `dl-runs`. Exit codes: 0 done, 1 metrics differ from the run's, 2 user error, 130 interrupted."""
    run_command("dl-runs", USAGE, COMMANDS)


def _locate(which: str, args: argparse.Namespace) -> Path:
    """Return the named folder, relative to the working folder or, if it is not there, to --output-dir."""
    below = Path(args.output_dir) / which
    return below if which != "last" and not os.path.exists(which) and os.path.exists(below) else Path(which)


def _folder(which: str, args: argparse.Namespace) -> Path:
    return find_run(which if which == "last" else str(_locate(which, args)), args.output_dir, "")


def _list(args: argparse.Namespace) -> Iterable[str]:
    """List runs in a table, including those of sweeps; the newest is last."""
    from dlrun.output.folders import all_runs
    from dlrun.runs.listing import as_json, as_table, list_runs

    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: expected an integer >= 1")
    rows = list_runs(Path(args.output_dir), args.filters, args.sort, args.reverse, args.limit)
    if args.json:
        return as_json(rows)
    return [as_table(rows, 0 if rows else len(all_runs(Path(args.output_dir))))]


def _show(args: argparse.Namespace) -> Iterable[str]:
    """Show a run's facts, last epochs, results and files."""
    from dlrun.runs.show import show, show_config

    folder = _folder(args.run, args)
    if args.json:
        from dlrun.output.as_json import as_json
        from dlrun.output.folders import read_summary

        return [as_json(read_summary(folder), indent=2)]
    return [show_config(folder) if args.config else show(folder)]


def _evaluate(args: argparse.Namespace) -> Iterable[str]:
    """Compute a finished run's metrics on its test split or on other data, which is encoded like the run's data."""
    from dlrun.runs.evaluate import evaluate, other_place, read_overrides

    folder = _folder(args.run, args)
    split, overrides = read_overrides(args.overrides)
    if args.on:
        if given := next((text for text in args.overrides if text in ("split=val", "split=test")), None):
            raise UserError(
                f"--on {args.on} {given}: --on evaluates all samples\n  expected no split, or data.file=FILE {given}"
            )
        split, overrides = "all", [*other_place(folder, args.on), *overrides]
    lines, is_reproduced = evaluate(folder, split, overrides, args.device, args.json)
    yield from lines
    if not is_reproduced:
        sys.stdout.flush()  # while a closed pipe is still handled
        sys.exit(1)


def _predict(args: argparse.Namespace) -> Iterable[str]:
    """Print a finished run's predictions, one line each; images that it generates are written to a folder."""
    from dlrun.runs.predict import Inputs, predict

    request = Inputs(args.inputs, args.fit, args.samples, args.latent, args.episodes, args.seed)
    out = Path(args.out) if args.out else None
    is_csv = args.format == "csv" or args.format is None and out is not None and out.suffix.lower() == ".csv"
    return predict(_folder(args.run, args), request, args.device, out, is_csv)


def _explain(args: argparse.Namespace) -> Iterable[str]:
    """Explain predictions for images or texts: feature maps, saliency, Grad-CAM, the gates of an LSTM."""
    from dlrun.runs.explain import explain

    return explain(_folder(args.run, args), args.inputs, args.fit, args.device, Path(args.out) if args.out else None)


def _export(args: argparse.Namespace) -> Iterable[str]:
    """Export a finished run's model to a file, which is checked on real samples before it is kept."""
    from dlrun.runs.formats import check_format

    check_format(args.format)
    folder = _folder(args.run, args)
    from dlrun.runs.export import export

    return export(folder, args.format, Path(args.out) if args.out else None)


def _compare(args: argparse.Namespace) -> Iterable[str]:
    """Draw the curves of several runs in one image and print the differences between their configs."""
    from dlrun.runs.compare import compare, jobs_of

    folders = []
    for which in args.runs:
        folders += jobs_of(_locate(which, args)) or [_folder(which, args)]
    return compare(folders, args.metric, Path(args.out), args.json)


def _ensemble(args: argparse.Namespace) -> Iterable[str]:
    """Evaluate the mean prediction of a sweep's finished jobs, or of several runs, or export it as one graph."""
    from dlrun.runs.compare import jobs_of

    folders = []
    for which in args.runs:
        folders += jobs_of(_locate(which, args)) or [_folder(which, args)]
    from dlrun.runs.ensemble import ensemble, export_ensemble

    if args.export:
        return export_ensemble(list(dict.fromkeys(folders)), Path(args.export))
    return ensemble(list(dict.fromkeys(folders)), args.split, args.device, args.json)


def _baseline(args: argparse.Namespace) -> Iterable[str]:
    """Fit gradient boosting, a linear model and the trivial one on the splits of a table's run, to compare with it."""
    from dlrun.runs.baseline import baseline

    return baseline(_folder(args.run, args), args.json)


def _importance(args: argparse.Namespace) -> Iterable[str]:
    """Measure how much worse a table's run gets on its test split when the values of a column are shuffled."""
    from dlrun.runs.importance import importance

    return importance(_folder(args.run, args), args.repeats, args.json)


def _draw(args: argparse.Namespace) -> Iterable[str]:
    """Draw the plots of a finished run from its folder and its data."""
    from dlrun.train.plotting import plot_finished

    folder = _folder(args.run, args)
    return [f"{folder / 'plots' / name}" for name in plot_finished(folder)]


def _report(args: argparse.Namespace) -> Iterable[str]:
    """Write one self-contained HTML file: curves, confusion matrix, the worst mistakes, config, environment."""
    from dlrun.runs.report import report, report_sweep

    out, folder = Path(args.out) if args.out else None, _locate(args.run, args)
    if os.path.isfile(folder / "sweep.json"):
        return report_sweep(folder, out)
    return report(_folder(args.run, args), out)


def _watch(args: argparse.Namespace) -> Iterable[str]:
    """Watch runs while they run: a table, curves, the machine's load. Without a terminal, print that once."""
    from dlrun.runs.watch import watch, watched

    base = Path(args.output_dir)
    if args.run is None:
        return watch(*watched(None, base))
    folder = _locate(args.run, args)
    return watch(*watched(folder if os.path.isfile(folder / "sweep.json") else _folder(args.run, args), base))


def _ui(args: argparse.Namespace) -> Iterable[str]:
    """Serve a page about all runs to this machine's browser, until Ctrl-C: table, curves, configs, images, sweeps."""
    from dlrun.runs.ui.server import serve

    return serve(Path(args.output_dir), args.port)


def _completion(args: argparse.Namespace) -> Iterable[str]:
    """Print the script that makes a shell complete dl-run, dl-runs and dl-data."""
    return completed(args, COMMANDS)


COMMANDS: dict[str, Command] = {
    "list": (arguments.of_list, _list),
    "show": (arguments.of_show, _show),
    "evaluate": (arguments.of_evaluate, _evaluate),
    "predict": (arguments.of_predict, _predict),
    "explain": (arguments.of_explain, _explain),
    "export": (arguments.of_export, _export),
    "compare": (arguments.of_compare, _compare),
    "ensemble": (arguments.of_ensemble, _ensemble),
    "draw": (arguments.of_run, _draw),
    "report": (arguments.of_report, _report),
    "baseline": (arguments.of_baseline, _baseline),
    "importance": (arguments.of_importance, _importance),
    "watch": (arguments.of_watch, _watch),
    "ui": (arguments.of_ui, _ui),
    "completion": (completion_arguments, _completion),
}

if __name__ == "__main__":
    main()
