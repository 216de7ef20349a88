"""Images of Pillow in memory: trained on with the pixels that `run.predict` and data=image_folder give them."""

import io
from typing import TYPE_CHECKING, Any

from dlrun.errors import UserError

if TYPE_CHECKING:
    import numpy as np

AS_STORED = ("L", "RGB")  # whose bytes are the pixels
WITH_ALPHA = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA"}  # and the modes of files that hold the same
IN_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")


def is_image(value: object) -> bool:
    """Whether it is an image of Pillow."""
    return hasattr(value, "save") and hasattr(value, "getbands")


def as_file(image: Any) -> io.BytesIO:
    """Return an image as a file without loss. Colours of a mode that has no such file (CMYK, HSV) become RGB."""
    if image.mode not in IN_PNG and image.mode not in ("I", "F"):
        image = image.convert(WITH_ALPHA.get(image.mode, "RGB"))
    content = io.BytesIO()
    image.save(content, "TIFF" if image.mode in ("I", "F") else "PNG")
    return io.BytesIO(content.getvalue())


def pixels(name: str, image: Any) -> "np.ndarray":
    """Return an image as uint8 (H, W), or (H, W, 3) if it has colours. Raises UserError for other modes.

    name: of the image, for the message. A palette's numbers become colours, and bits grey levels.
    """
    import numpy as np

    what = f"{name} is an image of mode {image.mode}"
    if image.mode[0] in "IF":
        raise UserError(
            f"{what}: its numbers are not bytes\n  expected mode L or RGB; or numbers as an array: np.asarray(image)"
        )
    if image.mode in ("LA", "RGBA", *WITH_ALPHA) or "transparency" in image.info:
        raise UserError(
            f"{what}, with transparency\n  expected mode L or RGB: image.convert('RGB'), when you predict, too"
        )
    if image.mode in AS_STORED:
        return np.asarray(image, np.uint8)
    from dlrun.runs.inputs import MAX_PIXELS, Decoding, decoded

    shape = (1 if image.mode in ("1", "L") else 3, image.height, image.width)
    array = decoded(name, as_file(image), shape, None, Decoding(MAX_PIXELS, None)).numpy()
    return array[0] if shape[0] == 1 else array.transpose(1, 2, 0)
