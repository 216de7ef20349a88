"""Networks. A builder makes one from a spec: `(spec, *, config keys) -> nn.Module`. Its return type declares its kind.

A plain `nn.Module` maps inputs (B, ...) to outputs (B, spec.outputs) and is trained by `task=supervised` or `segment`.
Other kinds of networks are classes, which the tasks that train them name in their signatures: AutoEncoder,
AdversarialAutoEncoder and VAE (autoencoder.py), Pair (gan.py: a generator and a critic), Policy, Values and Table
(policy.py).

Besides, a network may have the optional members that options.py lists: its text in the header, results of its own at
the end of a run, weights computed from data, ...
"""
