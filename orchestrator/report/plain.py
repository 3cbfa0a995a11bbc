"""Frames as CSV that spreadsheets open without interpreting text as formulas.

A text or column name that begins like a formula is prefixed with `'`, which marks text in spreadsheets. So is one that
begins with `'`: programs restore all texts by removing one leading `'`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV with all digits; text that begins like a formula or with a quote is prefixed with a quote."""
    return frame.map(_no_formula).rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")


_WIDE = "\uff1d\uff0b\uff0d\uff20"  # full-width = + - @, which East Asian spreadsheets treat like the ASCII ones
_NO_TEXT = (*"=+-@'", *_WIDE)
"""What begins a formula, and the mark itself."""


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_NO_TEXT) else value
