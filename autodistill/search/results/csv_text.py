"""Tables as CSV that a spreadsheet shows and never runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autodistill.core.wording import one_line

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV without its index; text that a spreadsheet would run as a formula gets an apostrophe.

    Numbers stay as they are, so a negative number is still one. Source: OWASP, "CSV Injection".
    """
    safe = frame.astype(object).map(_cell)
    safe.columns = [_cell(str(name)) for name in frame.columns]
    return str(safe.to_csv(index=False))


def _cell(value: Any) -> Any:
    """Return a cell; text becomes one printable line (pandas does not quote a lone CR) that is no formula."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip(" \ufffd").startswith(_FORMULA) else text
