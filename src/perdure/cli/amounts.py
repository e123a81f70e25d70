"""How many of something a command is to show, and where it begins: what a user types, bounded as databases count."""

from __future__ import annotations

from typing import Any

import click

from perdure.model.amounts import MOST

LIST_MAX = 50  # rows that a list shows where nobody says how many


class Amount(click.IntRange):
    """A whole number from ``min`` on. More than two thousand million is refused in words, not by the database."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = int(super().convert(value, param, ctx))
        if number > MOST:
            self.fail(f"{number} is more than {MOST}, the most that can be asked for.", param, ctx)
        return number


AMOUNT = Amount(min=1)
FROM_ZERO = Amount(min=0)
