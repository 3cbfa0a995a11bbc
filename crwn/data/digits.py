"""`digits`: the handwritten digits bundled with scikit-learn, 1,797 real images of 8x8 pixels.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its
test part). Every fifth image is for testing (360), the rest for training (1,437): the file order mixes the 13 writers.
"""

from __future__ import annotations

import numpy as np

from crwn.data.base import BaseSet, Embedded, ImageSet, ImageSplit

TEST_EVERY = 5


def read() -> ImageSet:
    """Read the digits; grey levels 0 to 16 are scaled to bytes 0 to 255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (its import costs a second, and only this set needs it)

    images, labels = load_digits(return_X_y=True)
    bytes_N1HW = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    is_test = np.arange(len(labels)) % TEST_EVERY == 0
    return ImageSet(
        train=ImageSplit(images=bytes_N1HW[~is_test], labels=labels[~is_test].astype(np.int64)),
        test=ImageSplit(images=bytes_N1HW[is_test], labels=labels[is_test].astype(np.int64)),
    )


DIGITS = BaseSet(
    name="digits",
    image_shape=(1, 8, 8),
    train_counts=(136, 154, 151, 135, 143, 143, 151, 153, 138, 133),
    test_counts=(42, 28, 26, 48, 38, 39, 30, 26, 36, 47),
    mean=(0.3053,),
    std=(0.3762,),
    source=Embedded(read=read),
)
