"""The arguments of each command of `dl-runs`; runs/cli.py has the commands."""

from dlrun.config.project import output_dir
from dlrun.runs.command import Parser


def where(parser: Parser) -> None:
    parser.add_argument(
        "--output-dir", default=output_dir(), metavar="DIR", help="the folder with the runs (%(default)s)"
    )


def of_run(parser: Parser, device: bool = False) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or `last`")
    where(parser)
    if device:
        parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")


def of_list(parser: Parser) -> None:
    parser.add_argument(
        "filters", nargs="*", metavar="KEY=PATTERN", help="model=lenet, data=mnist,cifar*, optimizer.lr=0.1"
    )
    parser.add_argument(
        "--sort", default="started", metavar="COLUMN", help="a column or a metric such as test/acc; ascending"
    )
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--limit", type=int, metavar="N", help="only the last N rows; with --reverse the first")
    parser.add_argument("--json", action="store_true", help="print a line of JSON per run")
    where(parser)


def of_show(parser: Parser) -> None:
    of_run(parser)
    parser.add_argument("--config", action="store_true", help="print the run's config")
    parser.add_argument("--json", action="store_true", help="print summary.json")


def of_evaluate(parser: Parser) -> None:
    of_run(parser, device=True)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="split=val|test|all, data=NAME, data.KEY=VALUE, data_dir=DIR",
    )
    parser.add_argument("--on", metavar="PATH", help="score all of a table, or of a folder or CSV of images or texts")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def of_predict(parser: Parser) -> None:
    of_run(parser, device=True)
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


def of_explain(parser: Parser) -> None:
    of_run(parser, device=True)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="images or texts, as of `predict`; without any, the "
                        "first sample of the test split")  # fmt: skip
    parser.add_argument(
        "--fit", action="store_true", help="resize images and convert their channels to those that the run takes"
    )
    parser.add_argument("--out", metavar="FOLDER", help="instead of <run>/explained")


def of_export(parser: Parser) -> None:
    of_run(parser)
    parser.add_argument("--format", required=True, metavar="FORMAT", help="pt2, onnx, safetensors or state_dict")
    parser.add_argument("--out", metavar="FILE", help="instead of <run>/export/model.<format>")


def of_compare(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs or sweeps")
    parser.add_argument(
        "--metric", action="append", metavar="M", help="such as val/loss; default: the val metrics that all runs have"
    )
    parser.add_argument("--out", default="compare.png", metavar="FILE", help="the image (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON: runs, differences, the image")
    where(parser)


def of_ensemble(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", metavar="SWEEP|RUN", help="the folder of a sweep, or those of runs")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the runs' own")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--export", metavar="FILE", help="instead, write the mean prediction as one graph: .pt2, .onnx")
    where(parser)


def of_baseline(parser: Parser) -> None:
    of_run(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def of_importance(parser: Parser) -> None:
    of_run(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="shuffles of each column (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")


def of_report(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP", help="the folder of a run or a sweep, or `last`")
    parser.add_argument("--out", metavar="FILE", help="instead of report.html in that folder")
    where(parser)


def of_watch(parser: Parser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN|SWEEP", help="a folder, or `last`; default: all runs")
    where(parser)


def of_ui(parser: Parser) -> None:
    parser.add_argument("--port", type=int, metavar="N", help="the port on 127.0.0.1; 0 chooses a free one")
    where(parser)
