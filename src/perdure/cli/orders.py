"""``perdure workflow move|reset|skip|terminate|delete``: orders about workflows as they stand. Each may be given twice.

One id is done at once. Several are a plan first: what each is, and nothing is changed until ``--yes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from perdure.cli.moves import again, each, several
from perdure.cli.target import Given, common, run
from perdure.cli.values import json_of
from perdure.errors import ConfigError
from perdure.model.ids import TokenMaker
from perdure.model.orders import Answer, Answered, read_goal
from perdure.model.resets import Children, Exclude, read_point
from perdure.operations import end
from perdure.operations.look import Order, settled, who
from perdure.operations.move import move as move_on
from perdure.operations.move import skip as skip_step
from perdure.operations.reset import Options
from perdure.operations.reset import reset as begin_again
from perdure.serde import Shape
from perdure.store.base import Store

force = click.option("--force", is_flag=True, help="Also to a version that was never launched.")


@click.command()
@common
@several
@click.option("--to", required=True, metavar="V|auto-upgrade|unset", help="Where it runs on.")
@click.option("--one-time", is_flag=True, help="There until it next comes to rest; then as its code declares.")
@force
def move(given: Given, ids: Sequence[str], reason: str, yes: bool, to: str, one_time: bool, force: bool) -> None:
    """Let open workflows run on elsewhere, whatever their code declares.

    What runs is taken from its executor in the same commit; what waits is replayed there at once. A history that does
    not fit the code there holds it, without effect.
    """
    goal, order, token = read_goal(to, once=one_time), Order(by=who(), reason=reason), TokenMaker()
    if one_time and goal.version is None:
        raise ConfigError(f"--one-time goes with a version, not with --to {to}")

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        [answered] = await move_on(store, [id], goal, order, token, force=force)
        return await _told(store, answered, "moved")

    run(each(given, ids, reason, do, "move", yes=yes))


@click.command()
@common
@several
@click.option("--to", required=True, metavar="first|last|STEP|before-version:V",
              help="What is kept: nothing; all up to the last wait that ended; all before a step (name, path 2.1 or "
              "record #7), or before the first record that a version wrote.")  # fmt: skip
@click.option("--exclude", type=click.Choice(["none", "messages", "all"]), default="none", show_default=True,
              help="What the next run is not given: messages of the dropped part; these and commands.")  # fmt: skip
@click.option("--move-to", metavar="V|auto-upgrade|unset", help="Where it runs on, in the same commit.")
@click.option("--children", type=click.Choice(["keep", "reset"]), default="keep", show_default=True,
              help="Those that the dropped part started: found again, or reset with it.")  # fmt: skip
@force
@again
def reset(
    given: Given, ids: Sequence[str], reason: str, yes: bool, to: str, exclude: Exclude, move_to: str | None,
    children: Children, force: bool, again: bool,
) -> None:  # fmt: skip
    """Begin other runs of workflows, open or closed, from their records before a point; the rest stays readable.

    Steps run again under the same idempotency keys. The same order again is already so, unless --again.
    """
    order, token, point = Order(by=who(), reason=reason), TokenMaker(), read_point(to)
    goal = None if move_to is None else read_goal(move_to)
    options = Options(exclude=exclude, goal=goal, children=children, again=again, force=force)

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        [answered] = await begin_again(store, [id], point, order, token, options)
        return await _told(store, answered, "reset")

    run(each(given, ids, reason, do, "reset", yes=yes))


@click.command()
@common
@click.argument("id")
@click.argument("step")
@click.option("--result", required=True, metavar="JSON", help="What the body sees as the step's result.")
@click.option("--because", "--reason", "reason", default="", metavar="TEXT", help="Why; kept in the history.")
def skip(given: Given, id: str, step: str, result: str, reason: str) -> None:
    """Give a step in flight its result: it does not run, or what it gives is refused. STEP is its name or path."""
    order, token = Order(by=who(), reason=reason), TokenMaker()
    data = Shape.of(Any).encode(json_of(result, "--result"), "the result")

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        return await _told(store, await skip_step(store, id, step, data, order, token), "skipped")

    run(each(given, [id], reason, do, "skip", yes=True))


@click.command()
@common
@several
def terminate(given: Given, ids: Sequence[str], reason: str, yes: bool) -> None:
    """End workflows at once, with no cleanup; whoever runs them writes nothing more."""
    order, token = Order(by=who(), reason=reason), TokenMaker()

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        return await _told(store, await end.terminate(store, id, order, token), "terminated")

    run(each(given, ids, reason, do, "terminate", yes=yes))


@click.command()
@common
@several
def delete(given: Given, ids: Sequence[str], reason: str, yes: bool) -> None:
    """Forget workflows that have ended: all runs, histories, messages. It cannot be undone."""

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        return await _told(store, await end.delete(store, id), "deleted")

    run(each(given, ids, reason, do, "delete", yes=yes))


async def _told(store: Store, answered: Answered, done: str) -> tuple[str, str, str]:
    answered = await settled(store, answered)
    words = f"{done if answered.answer is Answer.DONE else answered.answer}: {answered.words}"
    return answered.id, "" if answered.status is None else str(answered.status), words
