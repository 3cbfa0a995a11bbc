"""Frames as CSV that a spreadsheet opens without taking a text for a formula."""

from __future__ import annotations

from typing import Any

import pandas as pd


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV, every digit; a text that begins as a formula does has a quote in front."""
    return frame.map(_no_formula).to_csv(index=False, lineterminator="\n")


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
