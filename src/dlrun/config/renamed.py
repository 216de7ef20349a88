"""Config keys under their old names: refused with the new one."""

# section: old key -> what it is called now; where several classes had the key, the one that the section has counts
RENAMED = {
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


def renamed(section: str, key: str, keys: object) -> str | None:
    """The name under which one of `keys`, those that the section has, was known as `key`."""
    return next((new for new in RENAMED.get(section, {}).get(key, ()) if new in keys), None)
