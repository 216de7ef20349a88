"""Check that a config's data, model and task fit together, by the annotations of their signatures."""

import sys

from dlrun.config.build import build
from dlrun.config.pairing import LABELS, UNLABELLED, group_options, has_labels, learns, takes_spec
from dlrun.config.signatures import signature, spec_names
from dlrun.errors import PairingError, columns, listed


def check_pairing(config: dict, names: dict[str, str]) -> None:
    """Raise PairingError if the model or the task does not accept the spec of the data."""
    data = config["data"]
    for section in ("model", "task") if data.get("spec") else ():
        takes = takes_spec(config[section])
        if learns(takes, data):
            continue
        mine, its = (names.get(k) or config[k]["_target_"].rpartition(".")[2] for k in (section, "data"))
        fitting = [name for name, node in group_options(section) if learns(takes_spec(node), data)]
        sets = [name for name, node in group_options("data") if "spec" in node and learns(takes, node)]
        width = max(len(mine), len(its)) + 12
        kinds = " or ".join(name for name in spec_names(takes) if name != UNLABELLED)
        lacks = not has_labels(data)
        lists = {f"{section}s for {its}:": fitting or ["none"], f"data for {mine}:": sets}
        room = columns(sys.stderr, 10_000)  # without a terminal, lists are not wrapped
        raise PairingError(
            f"{section}={mine} cannot learn from data={its}\n"
            f"  {f'{mine} takes':{width}} {kinds}{' with labels' if lacks else ''}\n"
            f"  {f'{its} gives':{width}} {build(data['spec'])}\n"
            + "\n".join(listed(f"  {lead:{width}} ", names, width + 3, room) for lead, names in lists.items())
            + (f"\n  {LABELS}" if lacks else "")
        )


def check_net(config: dict, names: dict[str, str]) -> None:
    """Raise PairingError if the task takes another class of network than the model returns, by their annotations."""
    model, task = (names.get(k) or config[k]["_target_"].rpartition(".")[2] for k in ("model", "task"))
    returned, accepted = (_net(config[k]) for k in ("model", "task"))
    known = {_net(node) for _, node in group_options("task")} if returned != accepted else set()
    if (
        returned == accepted or accepted == "nn.Module" and returned not in known
    ):  # a user's own network class is an nn.Module
        return
    lists = {
        f"models for {task}:": [name for name, node in group_options("model") if _net(node) == accepted],
        f"tasks for {model}:": [name for name, node in group_options("task") if _net(node) == returned],
    }
    width, room = max(map(len, lists)), columns(sys.stderr, 10_000)
    kinds = {"nn.Module": "a plain network, from inputs to outputs"}
    raise PairingError(
        f"task={task} cannot train model={model}\n"
        f"  {f'{task} takes':{width}} {kinds.get(accepted, accepted)}\n"
        f"  {f'{model} returns':{width}} {kinds.get(returned, returned)}\n"
        + "\n".join(listed(f"  {lead:{width}} ", names, width + 3, room) for lead, names in lists.items())
    )


def _net(node: dict) -> str:
    return signature(node["_target_"]).net
