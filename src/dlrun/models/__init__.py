"""Networks. A builder makes one from a spec: `(spec, *, config keys) -> nn.Module`. Its return type declares its kind.

A plain `nn.Module` maps inputs (B, ...) to outputs (B, spec.outputs) and is trained by `task=supervised` or `segment`.
Other kinds of networks are classes, which the tasks that train them name in their signatures: AutoEncoder,
AdversarialAutoEncoder and VAE (autoencoder.py), Pair (gan.py: a generator and a critic), Policy, Values and Table
(policy.py).

These members of a network are optional:

- `description: str`: text for the header, after the number of parameters, such as "; 27 of 9,996 words have a vector".
- `report() -> dict`: the network's own results at the end of a run (figures, files, numbers).
- `auxiliary: float`, with a tuple of outputs in training: the weight of the losses of the auxiliary heads.
- `BACKBONE: tuple[str, ...]`: name prefixes of the layers that other networks share; `init=` loads these whatever
  head follows them.
- `observe(obs)`: a policy adds observations to its running statistics.
- `num_fitted: int`, with `fit(x)`: the number of train inputs from which a new network computes what does not learn.
"""
