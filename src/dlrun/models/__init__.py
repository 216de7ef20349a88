"""Networks. A builder makes one from a spec: `(spec, *, config keys) -> nn.Module`; its return type says what it is.

A plain `nn.Module` maps inputs (B, ...) to outputs (B, spec.outputs) and is trained by `task=supervised` or `segment`.
Networks of other shapes are classes, which the tasks that train them name: AutoEncoder, AdversarialAutoEncoder and VAE
(autoencoder.py), Pair (gan.py: a generator and a critic), Policy, Values and Table (policy.py).

A network may offer more; where it does not, the runner does without:

- `about: str`: words for the header, after the number of parameters, as in "; 27 of 9,996 words have a vector".
- `report() -> dict`: what the network itself reports at the end of a run (figures, files, numbers).
- `auxiliary: float` and outputs as a tuple in training: further heads, whose losses count with this weight.
- `BACKBONE: str`: the name of the part that other networks share; `init=` loads it whatever comes after it.
- `observe(obs)`: a policy takes in observations for its running statistics.
"""
