"""LeNet-5 in the book's form: two convolutions and three dense layers, with max pooling.

Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition"; the book,
section 10.4, and 10.8 for the variant with batch normalisation.
Deviations from the paper, as in the book: 3x3 convolutions on 28x28 pixels, max pooling before ReLU, a dense output.
"""

from torch import nn

from dlrun.errors import UserError
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Init, Norm

LEAST = 10  # smallest sides in pixels: 10 -> 8 -> 4 -> 2 -> 1


def lenet(spec: Image, *, norm: Norm, init: Init) -> nn.Module:
    """LeNet-5: (B, C, H, W) -> (B, outputs), for 10x10 pixels or more. norm: between convolution and pooling."""
    channels, height, width = spec.shape
    if min(height, width) < LEAST:
        raise UserError(
            f"lenet cannot take images of {height}x{width}: its two 3x3 convolutions and two poolings need at least "
            f"{LEAST}x{LEAST}; choose data with larger images, or another model (model=mlp, model=resnet18)"
        )
    rows, columns = (((side - 2) // 2 - 2) // 2 for side in (height, width))
    net = nn.Sequential(  # sizes for 28x28
        nn.Conv2d(channels, 6, 3),  # (B, 6, 26, 26)
        norm_layer(norm, 6, ndim=2),
        nn.MaxPool2d(2),  # (B, 6, 13, 13)
        nn.ReLU(),
        nn.Conv2d(6, 16, 3),  # (B, 16, 11, 11)
        norm_layer(norm, 16, ndim=2),
        nn.MaxPool2d(2),  # (B, 16, 5, 5)
        nn.ReLU(),
        nn.Flatten(),  # (B, 400)
        nn.Linear(16 * rows * columns, 120),  # (B, 120)
        nn.ReLU(),
        nn.Linear(120, 84),  # (B, 84)
        nn.ReLU(),
        nn.Linear(84, spec.outputs),  # (B, outputs)
    )
    return initialise(net, init)
