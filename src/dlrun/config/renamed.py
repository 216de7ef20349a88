"""Old names of config keys: typed ones are refused with the new names, those of older runs are replaced (older.py)."""

from collections.abc import Container

# section: old key -> new names; if several classes had the key, the new name that the section has is the right one
RENAMED: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {
        "csv": ("label_file",),
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
        "n_samples": ("num_samples",),
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
