"""Frames as CSV that a spreadsheet opens without taking a text for a formula.

A text or a column's name that begins as a formula does has a `'` in front, by which spreadsheets mark a text. So has
one that begins with `'`: a program that takes one `'` off the front of each text has every one as it was.
"""

from __future__ import annotations

from typing import Any

import pandas as pd


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV, every digit; what begins as a formula does, or with a quote, has a quote in front."""
    return frame.map(_no_formula).rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")


_WIDE = "\uff1d\uff0b\uff0d\uff20"  # = + - @ as East Asia also types them, which its spreadsheets take for the same
_NO_TEXT = (*"=+-@'", *_WIDE)
"""What begins a formula, and the mark itself."""


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_NO_TEXT) else value
