"""Encoded images of every kind are decoded, or the error says why not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crwn.data.decoding import MAX_PIXELS, pixels
from crwn.faults import InvalidError
from tests.crwn.data.conftest import SIZE, encoded
from tests.refusals import refused

Pixels = NDArray[np.uint8]
LEVELS_16 = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """An image as a file of this form."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_of(height: int, width: int, rows: bytes) -> bytes:
    """A PNG with 16 bits of red, green and blue, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_grey_is_the_same_in_every_channel() -> None:
    """A grey pixel's level three times; transparency is dropped."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    found, changed = pixels(encoded(grey), (3, 8, 8))
    assert changed == ["were of mode L and converted to RGB"]
    assert np.array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))
    found, changed = pixels(np.dstack([grey, grey, grey, np.full_like(grey, 7)]), (3, 8, 8))
    assert changed == ["were of mode RGBA and converted to RGB"]
    assert np.array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def test_a_coloured_image_of_the_right_size_is_taken_as_it_is(classes: dict[str, list[Pixels]]) -> None:
    """Byte for byte, encoded or not."""
    image = classes["n01"][0]
    for content in (image, encoded(image), encoded(image, "BMP")):
        found, changed = pixels(content, (3, SIZE, SIZE))
        assert changed == []
        assert np.array_equal(found, image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (saved(Image.fromarray(LEVELS_16), "PNG"), "I;16"),
        (saved(Image.fromarray(LEVELS_16), "TIFF"), "I;16"),
        (b"P5 8 8 65535\n" + LEVELS_16.astype(">u2").tobytes(), "I"),
    ],
    ids=["PNG", "TIFF", "PGM"],
)
def test_grey_levels_of_16_bits_are_divided_by_257(content: bytes, mode: str, channels: int) -> None:
    """So that 0 stays 0 and 65535 becomes 255, with rounding between; the conversion is reported."""
    found, changed = pixels(content, (channels, 8, 8))
    expected = np.rint(LEVELS_16 / 257).astype(np.uint8)
    assert all(np.array_equal(found[:, :, channel], expected) for channel in range(channels))
    assert changed == [
        f"were of mode {mode}, of 16 bits, divided by 257 and converted to {'L' if channels == 1 else 'RGB'}"
    ]


def test_colours_of_16_bits_keep_their_upper_8() -> None:
    """As Pillow reads them; exact where they were made from 8."""
    levels = np.arange(8 * 8 * 3, dtype=np.uint16).reshape(8, 24)
    rows = b"".join(b"\0" + row.tobytes() for row in (levels * 257).astype(">u2"))
    found, changed = pixels(png_of(8, 8, rows), (3, 8, 8))
    assert changed == []
    assert np.array_equal(found.reshape(8, 24), levels)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_levels_of_no_known_range_are_refused(dtype: type) -> None:
    """The level of white is unknown."""
    with refused(InvalidError, "levels-unknown"):
        pixels(saved(Image.fromarray(LEVELS_16.astype(dtype)), "TIFF"), (3, 8, 8))


@pytest.mark.parametrize(
    ("mode", "form"), [("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")]
)
def test_other_modes_are_converted_as_pillow_does(mode: str, form: str) -> None:
    """Like torchvision's loader, which uses the same call."""
    content = saved(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert(mode), form)
    found, changed = pixels(content, (3, 8, 8))
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert changed == [f"were of mode {mode} and converted to RGB"]


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    """The colours are those of the palette; transparency is ignored."""
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).quantize(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = pixels(saved(image, "PNG", transparency=bytes(range(16))), (3, 8, 8))
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_of_several_frames_the_first_is_taken(form: str) -> None:
    """The conversion is reported."""
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (200, 100)]
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    found, changed = pixels(content, (3, 8, 8))
    assert (found == [200, 0, 0]).all()
    assert changed[0] == "have several frames, of which the first is taken"


def test_an_orientation_is_not_applied() -> None:
    """As in torchvision's loader, so that pixels are those that others train with."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:4] = 200
    content = saved(Image.fromarray(image), "PNG", exif=exif)
    assert np.array_equal(pixels(content, (3, 8, 8))[0], image)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_image_is_said_to_be_none(content: bytes) -> None:
    """The error has its size, which reveals an empty file or a Git LFS pointer."""
    with refused(InvalidError, "image-of-no-known-format", says=str(len(content))):
        pixels(content, (3, 8, 8))


def test_what_claims_any_size_is_not_decoded() -> None:
    """A few bytes may claim gigabytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as photographs are decoded
        with refused(InvalidError, "image-too-large", says=["9000x10000", f"{MAX_PIXELS:,}"]):
            pixels(png_of(9000, 10000, b""), (3, 8, 8))


@pytest.mark.parametrize(("form", "kept"), [("PNG", -20), ("PNG", 60), ("JPEG", -20), ("WEBP", -20), ("BMP", -20)])
def test_an_image_that_is_cut_off_is_no_image(tmp_path: Path, form: str, kept: int) -> None:
    """The part that could be decoded is not used."""
    (tmp_path / "image").write_bytes(saved(Image.effect_noise((SIZE, SIZE), 60).convert("RGB"), form)[:kept])
    with pytest.raises((OSError, SyntaxError, ValueError)):
        pixels(tmp_path / "image", (3, SIZE, SIZE))


def test_a_changed_bit_in_a_png_is_found() -> None:
    """The format's checksums reveal it, where decoding alone would give other pixels."""
    content = bytearray(encoded(np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)))
    for place in range(33, len(content) - 12):  # behind the header, before the end
        damaged = content.copy()
        damaged[place] ^= 4
        with pytest.raises((OSError, SyntaxError, ValueError)):
            pixels(bytes(damaged), (3, SIZE, SIZE))
