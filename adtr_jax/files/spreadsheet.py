"""Lines of CSV that a spreadsheet takes for text and numbers, never for a formula."""

from collections.abc import Iterable

# What makes a spreadsheet read a cell as a formula; East Asian settings know the wide forms too.
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def csv_line(cells: Iterable[str | int | float | None]) -> bytes:
    """One line of a CSV file in UTF-8, with its newline.

    Text is always quoted, so that no separator in a name starts a cell of its own; what is not
    valid Unicode in it, as a file name may hold, is written as an escape. A truth value is `true`
    or `false`, None an empty cell, and a number read back is the very one that was written.
    """
    line = ",".join(map(_cell, cells)) + "\n"
    return line.encode("utf-8", errors="backslashreplace")


def path_cell(path: str) -> str:
    """A path that is no formula: "./" goes before one, which leaves it the same path."""
    return f"./{path}" if _is_formula(path) else path


def text_cell(text: str) -> str:
    """Text that is no formula: an apostrophe goes before one, as spreadsheets themselves do."""
    return f"'{text}" if _is_formula(text) else text


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        doubled = value.replace('"', '""')
        return f'"{doubled}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _is_formula(text: str) -> bool:
    return text.lstrip().startswith(FORMULA_STARTS)
