"""Figures, checked by their pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from orchestrator.report.figures import draw_accuracy_matrix

WHITE = (255, 255, 255)
DARKEST, BRIGHTEST = (68, 1, 84), (253, 231, 36)  # of viridis

NaN = np.nan


def pixels(content: bytes) -> NDArray[Any]:
    """A picture as [height, width, 3]."""
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def cells(content: bytes, num_tasks: int) -> list[list[tuple[int, ...]]]:
    """The colours in the middle of a matrix's cells, row by row; the matrix is the framed square."""
    image = pixels(content)
    dark = (image == 0).all(axis=2)
    rows = np.flatnonzero(dark.sum(axis=1) > 200)
    columns = np.flatnonzero(dark[rows[0]])
    top, bottom = rows[0], rows[-1]
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    frame = max(runs, key=len)
    height, width = (bottom - top) / num_tasks, (frame[-1] - frame[0]) / num_tasks
    return [
        [
            tuple(int(part) for part in image[int(top + (row + 0.5) * height), int(frame[0] + (column + 0.5) * width)])
            for column in range(num_tasks)
        ]
        for row in range(num_tasks)
    ]


def test_a_matrix_is_drawn_with_its_first_row_on_top() -> None:
    """Colours run from 0 to 100 %, whatever the values are, and what was not tested is white."""
    matrix = np.array([[1.0, NaN, NaN], [0.0, 1.0, NaN], [0.0, 0.0, 1.0]])
    shown = cells(draw_accuracy_matrix(matrix, "a title"), 3)
    assert shown == [
        [BRIGHTEST, WHITE, WHITE],
        [DARKEST, BRIGHTEST, WHITE],
        [DARKEST, DARKEST, BRIGHTEST],
    ]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_colours_mean_the_same_in_every_picture(value: float) -> None:
    """The scale does not follow the values, so two trials can be compared."""
    shown = cells(draw_accuracy_matrix(np.full((2, 2), value), ""), 2)
    assert {colour for row in shown for colour in row} == {
        {0.0: DARKEST, 0.5: (32, 144, 140), 1.0: BRIGHTEST}[value]
    }  # fmt: skip


def test_the_title_is_above() -> None:
    """Without one the strip above the matrix is empty; the rest of the picture is the same."""
    matrix = np.eye(2)
    titled, untitled = (pixels(draw_accuracy_matrix(matrix, title)) for title in ("a title", ""))
    assert titled.shape == untitled.shape == (440, 520, 3)
    different = np.flatnonzero((titled != untitled).any(axis=(1, 2)))
    assert len(different) > 5
    assert different.max() < 0.08 * 440
    assert (untitled[: different.max()] == 255).all()


@pytest.mark.parametrize("num_tasks", [1, 2, 50, 1000])
def test_any_number_of_tasks_is_a_small_picture(num_tasks: int) -> None:
    """The file stays small enough to have one for each of thousands of trials."""
    matrix = np.where(np.tri(num_tasks) > 0, np.linspace(0, 1, num_tasks), NaN)
    content = draw_accuracy_matrix(matrix, "a title")
    assert pixels(content).shape == (440, 520, 3)
    assert len(content) < 100_000


def test_a_matrix_without_a_test_is_drawn_white() -> None:
    """Nothing but NaN raises no warning."""
    assert cells(draw_accuracy_matrix(np.full((2, 2), NaN), ""), 2) == [[WHITE, WHITE], [WHITE, WHITE]]


def test_equal_matrices_are_equal_bytes() -> None:
    """The file holds neither its time nor the version that drew it."""
    first, second = (draw_accuracy_matrix(np.eye(3), "a title") for _ in range(2))
    assert first == second
    assert b"Matplotlib" not in first
    assert b"Software" not in first
