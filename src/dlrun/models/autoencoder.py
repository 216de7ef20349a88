"""Autoencoders: images to a code of a few numbers and back; plain, variational or adversarial, dense or convolutional.

Source: the book, sections 12.2 (784-256-128-20 and back, 236,436 + 237,200 parameters) and 12.5 (the VAE's 784-128-20,
209,464 parameters); Kingma and Welling 2014; Makhzani et al. 2016 for the adversarial autoencoder, with a deterministic
encoder and the widths of the book's autoencoder. The convolutional nets are this project's own.
"""

from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.layers import activation as activation_layer
from dlrun.models.layers import initialise
from dlrun.spec import Image, Unlabelled
from dlrun.types import Activation, Init, Probability, Size

BASE = 7  # convolutions with stride 2 halve the sides until they are this or less


class EncoderDecoder(nn.Module):
    """An encoder of images (B, C, H, W) and a decoder (B, latent) -> (B, C, H, W), without a final activation."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.latent = encoder, decoder, latent


class AutoEncoder(EncoderDecoder):
    """An autoencoder. encoder: (B, C, H, W) -> (B, latent)."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct: (B, C, H, W) -> (B, C, H, W), logits or values."""
        return self.decoder(self.encoder(x))


class VAE(EncoderDecoder):
    """A variational autoencoder. encoder: (B, C, H, W) -> (B, 2 latent), the means and log variances of q(z|x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode: (B, C, H, W) -> mean (B, latent), log variance (B, latent)."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        return mean, log_var


class AdversarialAutoEncoder(nn.Module):
    """An autoencoder, and a critic (B, latent) -> (B,): the logit that a code comes from the prior."""

    def __init__(self, autoencoder: AutoEncoder, critic: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.critic, self.latent = autoencoder, critic, autoencoder.latent

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct: (B, C, H, W) -> (B, C, H, W), logits or values."""
        return self.autoencoder(x)


def autoencoder(
    spec: Image | Unlabelled,
    *,
    latent: Size,
    hidden: list[Size],
    activation: Activation,
    dropout: Probability,
    init: Init,
) -> AutoEncoder:
    """A dense autoencoder. hidden: widths of the encoder, reversed in the decoder. dropout: after each hidden layer."""
    encoder, decoder = _dense(spec, latent, latent, hidden, activation, dropout)
    return initialise(AutoEncoder(encoder, decoder, latent), init)


def conv_autoencoder(
    spec: Image | Unlabelled, *, latent: Size, width: Size, activation: Activation, init: Init
) -> AutoEncoder:
    """A convolutional autoencoder. width: channels of the first convolution, doubled by each; then a dense layer."""
    encoder, decoder = _convolutional("conv_autoencoder", spec, latent, latent, width, activation)
    return initialise(AutoEncoder(encoder, decoder, latent), init)


def vae(spec: Image | Unlabelled, *, latent: Size, hidden: list[Size], activation: Activation, init: Init) -> VAE:
    """A dense VAE, with the keys of `autoencoder`. One layer of twice the width gives the mean and the log variance."""
    encoder, decoder = _dense(spec, 2 * latent, latent, hidden, activation, 0.0)
    return initialise(VAE(encoder, decoder, latent), init)


def adversarial_autoencoder(
    spec: Image | Unlabelled,
    *,
    latent: Size,
    hidden: list[Size],
    critic_hidden: list[Size],
    activation: Activation,
    init: Init,
) -> AdversarialAutoEncoder:
    """A dense autoencoder and a critic of its codes. critic_hidden: widths of the critic."""
    encoder, decoder = _dense(spec, latent, latent, hidden, activation, 0.0)
    critic = nn.Sequential(*_layers([latent, *critic_hidden, 1], activation, 0.0), nn.Flatten(0))
    return initialise(AdversarialAutoEncoder(AutoEncoder(encoder, decoder, latent), critic), init)


def conv_vae(spec: Image | Unlabelled, *, latent: Size, width: Size, activation: Activation, init: Init) -> VAE:
    """A convolutional VAE, with the keys of `conv_autoencoder`."""
    encoder, decoder = _convolutional("conv_vae", spec, 2 * latent, latent, width, activation)
    return initialise(VAE(encoder, decoder, latent), init)


def _dense(
    spec: Image, code: int, latent: int, hidden: list[int], activation: str, dropout: float
) -> tuple[nn.Module, nn.Module]:
    down = _layers([spec.features, *hidden, code], activation, dropout)
    up = _layers([latent, *reversed(hidden), spec.features], activation, dropout)
    return nn.Sequential(nn.Flatten(), *down), nn.Sequential(*up, nn.Unflatten(1, tuple(spec.shape)))


def _layers(widths: list[int], activation: str, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), activation_layer(activation), *([nn.Dropout(dropout)] if dropout else [])]
    return layers[: -2 if dropout else -1]  # no activation and no dropout after the last dense layer


def _convolutional(
    name: str, spec: Image, code: int, latent: int, width: int, activation: str
) -> tuple[nn.Module, nn.Module]:
    """4x4 convolutions with stride 2; for 28x28 pixels and width 32: 28 -> 14 -> 7, 32 and 64 channels."""
    channels, height, width_px = spec.shape
    times = halvings(height, width_px)
    if times == 0 or min(height, width_px) >> times > BASE:
        raise UserError(
            f"{name} cannot take images of {height}x{width_px}: it halves both sides until one is {BASE} or less; "
            "expected sides for which that works, such as 8, 28, 32, 64 or 96; "
            "choose other data, or a dense net (model=autoencoder, model=vae)"
        )
    maps = [channels, *(width << i for i in range(times))]
    down: list[nn.Module] = []
    for a, b in zip(maps, maps[1:], strict=False):
        down += [nn.Conv2d(a, b, 4, stride=2, padding=1), activation_layer(activation)]
    last = (maps[-1], height >> times, width_px >> times)
    features = last[0] * last[1] * last[2]
    down += [nn.Flatten(), nn.Linear(features, code)]
    up: list[nn.Module] = [nn.Linear(latent, features), activation_layer(activation), nn.Unflatten(1, last)]
    for a, b in zip(maps[:0:-1], maps[-2::-1], strict=True):
        up += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), activation_layer(activation)]
    return nn.Sequential(*down), nn.Sequential(*up[:-1])


def halvings(height: int, width: int) -> int:
    """Number of times that both sides can be halved before the shorter is at most BASE or one of them is odd."""
    times = 0
    while min(height, width) > BASE and height % 2 == 0 and width % 2 == 0:
        height, width, times = height // 2, width // 2, times + 1
    return times
