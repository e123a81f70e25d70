"""How many of something, and from which on: whole numbers, bounded as databases count."""

from __future__ import annotations

from typing import Any

from perdure.errors import Misuse

MOST = 2**31 - 1  # more is no number for a database's ``limit``, and nobody reads or needs it
_SHOWN = 100  # characters of what was given instead


def is_amount(value: Any, least: int = 1) -> bool:
    """Whether it is a whole number from ``least`` to ``MOST``.

    >>> is_amount(1), is_amount(0), is_amount(True), is_amount(2**31)
    (True, False, False, False)
    """
    return type(value) is int and least <= value <= MOST


def check_amount(value: Any, what: str, least: int = 1) -> int:
    """The number itself. Raises ``Misuse``, which shows what was given as ``what`` instead of one.

    >>> check_amount(50, "limit")
    50
    """
    if is_amount(value, least):
        return int(value)
    raise Misuse(f"{what}={shown(value)} cannot be asked for: give a whole number from {least} to {MOST}")


def shown(value: Any) -> str:
    """What was given; Python refuses to print an integer of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"(a number of {value.bit_length()} bits)"
    return repr(value)[:_SHOWN]
