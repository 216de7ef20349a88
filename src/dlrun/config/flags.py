"""Read Hydra's command-line flags. A flag is obeyed or refused with its replacement; none is ignored."""

import argparse
import os
from typing import NoReturn

from dlrun.config.hydra_internals import args_parser
from dlrun.config.hydra_section import check_source
from dlrun.errors import UserError
from dlrun.overrides import CONFIG_FLAGS


def read_flags(arguments: list[str]) -> argparse.Namespace:
    """Parse the flags. Raises UserError for flags that have no effect here or could run code."""
    parser = args_parser()
    parser.error = _refuse_flags  # type: ignore[method-assign]  # argparse has no other way to raise
    flags = parser.parse_intermixed_args(arguments)
    if hidden := next((o for o in flags.overrides if o.startswith("-")), None):  # Hydra would read it as a flag
        raise UserError(f"{hidden} after --: expected overrides there, such as trainer.epochs=3")
    if flags.experimental_rerun:
        raise UserError("--experimental-rerun loads a pickle, which can run any code: expected resume=<run folder>")
    if flags.shell_completion:
        raise UserError('--shell-completion is Hydra\'s: expected eval "$(dl-run completion bash)", or zsh, or fish')
    if flags.hydra_help:
        raise UserError("--hydra-help describes only Hydra: expected dl-run --help, or --cfg hydra for its section")
    if flags.multirun and "hydra.mode=RUN" in flags.overrides:
        raise UserError("-m and hydra.mode=RUN: expected only one of the two")
    if not flags.cfg and (flags.package or flags.resolve):
        name = f"--package {flags.package}" if flags.package else "--resolve"
        raise UserError(f"{name} needs --cfg\n  expected dl-run --cfg job {name} ...")
    for name, path in (("--config-path", flags.config_path), ("--config-dir", flags.config_dir)):
        check_source(path or "")
        if name == "--config-path" and path and not os.path.isabs(path):  # Hydra resolves it relative to its own code
            raise UserError(
                f"--config-path={path}: expected an absolute path: --config-path={os.path.abspath(path)}\n"
                "  to add your own options to the existing ones use --config-dir"
            )
    return flags


def config_flags(arguments: list[str]) -> list[str]:
    """The flags of a command line that locate configs, to be passed on to other processes."""
    flags = vars(args_parser().parse_args(arguments))
    return [f"--{name}={value}" for name in CONFIG_FLAGS if (value := flags[name.replace("-", "_")])]


def _refuse_flags(message: str) -> NoReturn:
    raise UserError(
        f"{message}\n  expected overrides, such as trainer.epochs=3, and the flags that dl-run --help lists"
    )
