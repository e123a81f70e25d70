"""``perdure process …``: workflows that a scheme drives."""

from __future__ import annotations

import click

from perdure.cli.process_diagram import diagram


@click.group()
def process() -> None:
    """Processes: workflows that a state machine drives."""


process.add_command(diagram)
