"""The command line's root: ``perdure``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

import perdure
from perdure.cli.batches import batch
from perdure.cli.by_query import by_query
from perdure.cli.check import check
from perdure.cli.counting import count
from perdure.cli.db import db
from perdure.cli.demo import demo
from perdure.cli.deployments import deployment
from perdure.cli.doctor import doctor
from perdure.cli.executors import executor
from perdure.cli.exits import MEANINGS, Code, Exit, exit_of
from perdure.cli.moves import fork, pause, restart, resume, unpause
from perdure.cli.orders import delete, move, reset, skip, terminate
from perdure.cli.output import Unwritable, drop_output
from perdure.cli.processes import process
from perdure.cli.queues import queue
from perdure.cli.recovery import recovery
from perdure.cli.replay import replay_
from perdure.cli.run import run_
from perdure.cli.schedules import schedule
from perdure.cli.target import Given, options
from perdure.cli.upkeep import copy, purge, size
from perdure.cli.watching import stream, watch
from perdure.cli.workflows import cancel, workflow
from perdure.errors import PerdureError

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {text}" for code, text in MEANINGS.items())


class Root(click.Group):
    """The root: errors of the library end a command with a message and a code, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PerdureError as error:
            raise exit_of(error) from error
        except Unwritable as error:
            drop_output()
            raise Exit(Code.NO, f"the output could not be written whole: {error.strerror}") from error
        except KeyboardInterrupt:
            raise Exit(Code.INTERRUPTED, "interrupted") from None


@click.group(cls=Root, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@options
@click.version_option(perdure.__version__, prog_name="perdure")
@click.pass_context
def cli(ctx: click.Context, database: str | None, app: str | None, output: str | None) -> None:
    """Durable workflows: run them, look at them, operate them.

    The database is --database, else PERDURE_DATABASE_URL, else [tool.perdure] in pyproject.toml, else the single file
    in ./.perdure. The app is --app, else PERDURE_APP, else the only one in the database. Every verb takes --database,
    --app and --output; with --output json it prints one document {"version": 1, ...}.

    New here? perdure demo
    """
    ctx.obj = Given(database, app, output or "table")


for command in (
    batch,
    check,
    db,
    demo,
    deployment,
    doctor,
    executor,
    process,
    queue,
    recovery,
    replay_,
    run_,
    schedule,
    workflow,
):
    cli.add_command(command)

for verb in (purge, size, copy):
    db.add_command(verb)

orders = (move, reset, skip, terminate, delete)
for verb in (count, pause, unpause, resume, restart, fork, *orders, stream, watch):
    workflow.add_command(verb)

for verb in (cancel, pause, unpause, resume, restart, fork, move, reset):
    by_query(verb)


def _have_streams() -> None:
    """Standard streams that were closed (``>&-``, some supervisors) lead nowhere: that ends no command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open as long as the process


def main() -> None:
    """The console script."""
    _have_streams()
    cli(prog_name="perdure")
