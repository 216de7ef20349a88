"""Old names of config keys (refused with the new ones) and of modules in older runs; keys that older runs lack."""

from collections.abc import Container

# section: old key -> new names; if several classes had the key, the new name that the section has is the right one
RENAMED: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {
        "film_steps": ("video_steps",),
        "source.folder": ("root",),
        "source.header": ("header",),
        "source.images": ("images",),
        "source.label_column": ("label_column",),
        "source.masks": ("masks",),
        "source.path": ("root",),
        "source.pictures": ("images",),
        "source.random_state": ("random_state",),
        "source.test_fraction": ("test_fraction",),
        "source.text_column": ("text_column",),
        "source.values": ("values",),
    },
    "task": {
        "anneal": ("anneal_clip",),
        "capacity": ("buffer_size",),
        "clip": ("clip_coef",),
        "entropy_weight": ("ent_coef",),
        "epsilon_until": ("exploration_fraction",),
        "kl_goal": ("kl_target",),
        "kl_weight": ("kl_coef",),
        "lam": ("gae_lambda",),
        "length": ("num_steps",),
        "max_kl": ("target_kl",),
        "passes": ("update_epochs",),
        "penalty": ("gp_weight",),
        "pieces": ("grad_accum_steps",),
        "rates": ("lr_multipliers",),
        "target_every": ("target_update_interval",),
        "turns": ("n_critic",),
        "updates": ("gradient_steps",),
        "value_clip": ("clip_vloss",),
        "value_weight": ("vf_coef",),
        "warmup": (
            "kl_warmup_epochs",
            "learning_starts",
        ),
    },
    "schedule": {
        "warmup": ("warmup_fraction",),
    },
    "sweep": {
        "pruner_warmup": ("pruner_warmup_epochs",),
    },
}


def renamed(section: str, key: str, keys: Container[str]) -> str | None:
    """Return the new name of `key`: the one that is among `keys`, the keys of the section. None if there is none."""
    return next((new for new in RENAMED.get(section, {}).get(key, ()) if new in keys), None)


# modules that moved: configs of runs from before are read with the new path
MOVED = {
    "dlrun.runs.trackers": "dlrun.tracking.trackers",
    "dlrun.data.arrays": "dlrun.data.arrays.arrays",
    "dlrun.data.augment": "dlrun.data.images.augment",
    "dlrun.data.envs": "dlrun.data.envs.envs",
    "dlrun.data.image_folder": "dlrun.data.images.folder",
    "dlrun.data.images": "dlrun.data.images.images",
    "dlrun.data.masks": "dlrun.data.images.masks",
    "dlrun.data.stream": "dlrun.data.stream.stream",
    "dlrun.data.tables": "dlrun.data.table.tables",
    "dlrun.data.text": "dlrun.data.texts.texts",
}


def moved(target: str) -> str:
    """Return the present path of a `_target_`."""
    module, _, name = target.rpartition(".")
    return f"{MOVED.get(module, module)}.{name}"


# readers that are part of their data set now: data.source._target_ -> data._target_, and the keys with a new name
JOINED = {
    "dlrun.data.readers.masks.mask_folder": ("dlrun.data.images.mask_folder.MaskFolder", {"folder": "root"}),
    "dlrun.data.readers.texts.text_folder": ("dlrun.data.texts.folder.TextFolder", {"path": "root"}),
}

# keys that configs of older runs lack, with the value that keeps their results
ADDED: dict[str, dict[str, object]] = {
    "dlrun.data.table.table_file.TableFile": {"positive": None},
    "dlrun.data.texts.texts.Texts": {"stratify": False},
    "dlrun.data.texts.folder.TextFolder": {"stratify": False},
    "dlrun.tracking.trackers.Trackio": {"artifacts": False, "wait_seconds": 2},
    "dlrun.tracking.trackers.Wandb": {"artifacts": False, "wait_seconds": 2},
    "dlrun.tracking.trackers.Mlflow": {"artifacts": False, "wait_seconds": 2},
}
