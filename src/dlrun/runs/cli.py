"""The `dl-runs` command: list, show, evaluate, use, compare and report runs. torch is imported only if needed."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from dlrun.config.project import output_dir
from dlrun.errors import UserError
from dlrun.output.folders import find_run
from dlrun.runs.command import Command, Parser, options_in, run_command
from dlrun.runs.completion import completion_arguments

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


def _where(parser: Parser) -> None:
    parser.add_argument(
        "--output-dir", default=output_dir(), metavar="DIR", help="the folder with the runs (%(default)s)"
    )


def _run_arguments(parser: Parser, device: bool = False) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or `last`")
    _where(parser)
    if device:
        parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")


def _locate(which: str, args: argparse.Namespace) -> Path:
    """Return the named folder, relative to the working folder or, if it is not there, to --output-dir."""
    below = Path(args.output_dir) / which
    return below if which != "last" and not os.path.exists(which) and os.path.exists(below) else Path(which)


def _folder(which: str, args: argparse.Namespace) -> Path:
    return find_run(which if which == "last" else str(_locate(which, args)), args.output_dir, "")


def _list_arguments(parser: Parser) -> None:
    parser.add_argument(
        "filters", nargs="*", metavar="KEY=PATTERN", help="model=lenet, data=mnist,cifar*, optimizer.lr=0.1"
    )
    parser.add_argument(
        "--sort", default="started", metavar="COLUMN", help="a column or a metric such as test/acc; ascending"
    )
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--limit", type=int, metavar="N", help="only the last N rows; with --reverse the first")
    parser.add_argument("--json", action="store_true", help="print a line of JSON per run")
    _where(parser)


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


def _show_arguments(parser: Parser) -> None:
    _run_arguments(parser)
    parser.add_argument("--config", action="store_true", help="print the run's config")
    parser.add_argument("--json", action="store_true", help="print summary.json")


def _show(args: argparse.Namespace) -> Iterable[str]:
    """Show a run's facts, last epochs, results and files."""
    from dlrun.runs.show import show, show_config

    folder = _folder(args.run, args)
    if args.json:
        from dlrun.output.as_json import as_json
        from dlrun.output.folders import read_summary

        return [as_json(read_summary(folder), indent=2)]
    return [show_config(folder) if args.config else show(folder)]


def _evaluate_arguments(parser: Parser) -> None:
    _run_arguments(parser, device=True)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="split=val|test|all, data=NAME, data.KEY=VALUE, data_dir=DIR",
    )
    parser.add_argument("--on", metavar="PATH", help="score all of a table, or of a folder or CSV of images or texts")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def _evaluate(args: argparse.Namespace) -> Iterable[str]:
    """Compute a finished run's metrics on its test split or on other data, which is encoded like the run's data."""
    from dlrun.runs.evaluate import evaluate, other_place, read_overrides

    folder = _folder(args.run, args)
    split, overrides = read_overrides(args.overrides)
    if args.on:
        split, overrides = "all", [*other_place(folder, args.on), *overrides]
    lines, is_reproduced = evaluate(folder, split, overrides, args.device, args.json)
    yield from lines
    if not is_reproduced:
        sys.stdout.flush()  # while a closed pipe is still handled
        sys.exit(1)


def _predict_arguments(parser: Parser) -> None:
    _run_arguments(parser, device=True)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="images or folders of them, texts or .txt files, "
                        "rows as 1,2,3, .csv files of rows or texts; - reads standard input")  # fmt: skip
    parser.add_argument(
        "--fit", action="store_true", help="resize images and convert their channels to those that the run takes"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="generative runs: the number of samples (see --seed)")
    parser.add_argument(
        "--latent", metavar="FILE", help="generative runs: codes in a .csv, one per row; - is standard input"
    )
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="policies: the number of episodes; --seed sets their starts"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--format", choices=("jsonl", "csv"), help="csv if --out ends so, else jsonl")
    parser.add_argument("--out", metavar="PATH", help="a file for the lines, or a folder for images (predictions)")


def _predict(args: argparse.Namespace) -> Iterable[str]:
    """Print a finished run's predictions, one line each; images that it generates are written to a folder."""
    from dlrun.runs.predict import Inputs, predict

    given = Inputs(args.inputs, args.fit, args.samples, args.latent, args.episodes, args.seed)
    out = Path(args.out) if args.out else None
    is_csv = args.format == "csv" or args.format is None and out is not None and out.suffix.lower() == ".csv"
    return predict(_folder(args.run, args), given, args.device, out, is_csv)


def _explain_arguments(parser: Parser) -> None:
    _run_arguments(parser, device=True)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="images or texts, as of `predict`; without any, the "
                        "first sample of the test split")  # fmt: skip
    parser.add_argument(
        "--fit", action="store_true", help="resize images and convert their channels to those that the run takes"
    )
    parser.add_argument("--out", metavar="FOLDER", help="instead of <run>/explained")


def _explain(args: argparse.Namespace) -> Iterable[str]:
    """Draw what a classifier does with an image or a text: feature maps, saliency, Grad-CAM, the gates of an LSTM."""
    from dlrun.runs.explain import explain

    return explain(_folder(args.run, args), args.inputs, args.fit, args.device, Path(args.out) if args.out else None)


def _export_arguments(parser: Parser) -> None:
    _run_arguments(parser)
    parser.add_argument("--format", required=True, metavar="FORMAT", help="pt2, onnx, safetensors or state_dict")
    parser.add_argument("--out", metavar="FILE", help="instead of <run>/export/model.<format>")


def _export(args: argparse.Namespace) -> Iterable[str]:
    """Export a finished run's model to a file, which is checked on real samples before it is kept."""
    from dlrun.runs.formats import check_format

    check_format(args.format)
    folder = _folder(args.run, args)
    from dlrun.runs.export import export

    return export(folder, args.format, Path(args.out) if args.out else None)


def _compare_arguments(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs or sweeps")
    parser.add_argument(
        "--metric", action="append", metavar="M", help="such as val/loss; default: the val metrics that all runs have"
    )
    parser.add_argument("--out", default="compare.png", metavar="FILE", help="the image (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON: runs, differences, the image")
    _where(parser)


def _compare(args: argparse.Namespace) -> Iterable[str]:
    """Draw the curves of several runs in one image and print the differences between their configs."""
    from dlrun.runs.compare import compare, jobs_of

    folders = []
    for which in args.runs:
        folders += jobs_of(_locate(which, args)) or [_folder(which, args)]
    return compare(folders, args.metric, Path(args.out), args.json)


def _baseline_arguments(parser: Parser) -> None:
    _run_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def _baseline(args: argparse.Namespace) -> Iterable[str]:
    """Fit gradient boosting, a linear model and the trivial one on the splits of a table's run, to compare with it."""
    from dlrun.runs.baseline import baseline

    return baseline(_folder(args.run, args), args.json)


def _importance_arguments(parser: Parser) -> None:
    _run_arguments(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="shuffles of each column (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")


def _importance(args: argparse.Namespace) -> Iterable[str]:
    """Measure how much worse a table's run gets on its test split when the values of a column are shuffled."""
    from dlrun.runs.importance import importance

    return importance(_folder(args.run, args), args.repeats, args.json)


def _draw(args: argparse.Namespace) -> Iterable[str]:
    """Draw the plots of a finished run from its folder and its data."""
    from dlrun.train.drawing import draw_finished

    folder = _folder(args.run, args)
    return [f"{folder / 'plots' / name}" for name in draw_finished(folder)]


def _report_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP", help="the folder of a run or a sweep, or `last`")
    parser.add_argument("--out", metavar="FILE", help="instead of report.html in that folder")
    _where(parser)


def _report(args: argparse.Namespace) -> Iterable[str]:
    """Write one self-contained HTML file: curves, confusion matrix, the worst mistakes, config, environment."""
    from dlrun.runs.report import report, report_sweep

    out, folder = Path(args.out) if args.out else None, _locate(args.run, args)
    if os.path.isfile(folder / "sweep.json"):
        return report_sweep(folder, out)
    return report(_folder(args.run, args), out)


def _watch_arguments(parser: Parser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN|SWEEP", help="a folder, or `last`; default: all runs")
    _where(parser)


def _watch(args: argparse.Namespace) -> Iterable[str]:
    """Watch runs while they run: a table, curves, the machine's load. Without a terminal, print that once."""
    from dlrun.runs.watch import watch, watched

    base = Path(args.output_dir)
    if args.run is None:
        return watch(*watched(None, base))
    folder = _locate(args.run, args)
    return watch(*watched(folder if os.path.isfile(folder / "sweep.json") else _folder(args.run, args), base))


def _ui_arguments(parser: Parser) -> None:
    parser.add_argument("--port", type=int, metavar="N", help="the port on 127.0.0.1; 0 chooses a free one")
    _where(parser)


def _ui(args: argparse.Namespace) -> Iterable[str]:
    """Serve a page about all runs to this machine's browser, until Ctrl-C: table, curves, configs, images, sweeps."""
    from dlrun.runs.ui.server import serve

    return serve(Path(args.output_dir), args.port)


def _completion(args: argparse.Namespace) -> Iterable[str]:
    """Print the script that makes a shell complete dl-run, dl-runs and dl-data."""
    from dlrun.runs.completion import SCRIPTS, words

    return [SCRIPTS[args.shell]] if args.words is None else words(args.words, options_in(COMMANDS), list(COMMANDS))


COMMANDS: dict[str, Command] = {
    "list": (_list_arguments, _list),
    "show": (_show_arguments, _show),
    "evaluate": (_evaluate_arguments, _evaluate),
    "predict": (_predict_arguments, _predict),
    "explain": (_explain_arguments, _explain),
    "export": (_export_arguments, _export),
    "compare": (_compare_arguments, _compare),
    "draw": (_run_arguments, _draw),
    "report": (_report_arguments, _report),
    "baseline": (_baseline_arguments, _baseline),
    "importance": (_importance_arguments, _importance),
    "watch": (_watch_arguments, _watch),
    "ui": (_ui_arguments, _ui),
    "completion": (completion_arguments, _completion),
}

if __name__ == "__main__":
    main()
