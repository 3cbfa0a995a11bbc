"""Decodes images to pixels of the shape that a set needs.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crwn.faults import InvalidError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 89_478_485
"""Above this, Pillow warns of a decompression bomb: a file of a few kilobytes may claim any size."""
SCALED_TO_16_BITS = ("PNG", "PPM")
"""Formats whose grey images of more than 8 bits Pillow decodes to values up to 65535, as 32-bit integers (mode I)."""


def pixels(
    content: Path | bytes | NDArray[np.uint8], image_shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[str]]:
    """An image's pixels [H, W, C] in the given shape, and a description of each conversion that this took.

    Grey, transparent and palette images are converted to RGB, or colour images to grey if one channel is wanted;
    transparency is dropped. 16-bit grey levels are divided by 257; of 16-bit colour images, Pillow keeps the upper 8
    bits. Images of other sizes are resized with a Lanczos filter, as the published splits of miniImageNet were. Only
    the first of several frames is used. EXIF orientation is not applied, as in torchvision.

    Args:
        content: a file, an encoded image, or pixels.
        image_shape: channels, height, width.

    Raises:
        OSError, ValueError: it cannot be decoded, is larger than any photograph, or has levels of unknown range.
    """
    from PIL import Image  # noqa: PLC0415 (only decoding needs it)

    channels, height, width = image_shape
    changed = []
    if isinstance(content, np.ndarray):
        image = Image.fromarray(content[:, :, 0] if content.ndim == 3 and content.shape[2] == 1 else content)
    else:
        encoded = content if isinstance(content, bytes) else content.read_bytes()
        image = _opened(encoded)
        if image.format == "PNG":
            image.verify()  # its checksums, which decoding skips; verify() leaves it unusable, so open it again
            image = _opened(encoded)
        if getattr(image, "n_frames", 1) > 1:
            changed.append("have several frames, of which the first is taken")
        image.load()
    mode = {1: "L", 3: "RGB"}[channels]
    if image.mode != mode:
        image, how = _of_8_bits(image)
        changed.append(f"were of mode {how} and converted to {mode}")
        image.info.pop("transparency", None)  # dropped here, or Pillow would warn that it drops it
        image = image.convert(mode)
    if image.size != (width, height):
        changed.append(f"were of other sizes and resized to {height}x{width}")
        image = image.resize((width, height), resample=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels), changed


def _opened(content: bytes) -> Picture:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 (as above)

    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise InvalidError(
            "image-of-no-known-format", f"its {len(content)} bytes are no image in a format that is known"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise InvalidError(
            "image-too-large", f"it claims {image.height}x{image.width} pixels, expected at most {MAX_PIXELS:,}"
        )
    return image


def _of_8_bits(image: Picture) -> tuple[Picture, str]:
    """The image with 8-bit levels, and a description of its original mode.

    Raises:
        ValueError: the range of its levels is unknown.
    """
    from PIL import Image  # noqa: PLC0415 (as above)

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SCALED_TO_16_BITS):
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)), f"{image.mode}, of 16 bits, divided by 257"
    if image.mode in ("I", "F"):
        raise InvalidError(
            "levels-unknown", f"mode {image.mode}, whose levels have no known range; expected 8 or 16 bits"
        )
    return image, image.mode
