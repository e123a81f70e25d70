"""``perdure db migrate|status``: the schema of a database."""

from __future__ import annotations

import click

from perdure.cli.exits import Code
from perdure.cli.output import emit_one
from perdure.cli.target import Given, common, find_database, known_to_sqlite, must_exist, opened, run
from perdure.errors import ConfigError
from perdure.operations.copy import refuse_moved
from perdure.store.open import open_store


@click.group()
def db() -> None:
    """The database: its schema, its size, and what it keeps."""


@db.command()
@common
def migrate(given: Given) -> None:
    """Bring the schema up to date: apply what is missing. Safe to repeat, and to run from several places at once."""
    run(_migrate(given))


async def _migrate(given: Given) -> None:
    place = find_database(given)
    store = open_store(place.url, given.app or "", place.schema)
    await store.open()
    try:
        applied = await store.migrate()
        have, known = await store.schema_version()
    finally:
        await store.close()
    lines = [f"applied {name}" for name in applied] or [f"nothing to do: {store.url} has schema version {have}"]
    fields = {"database": store.url, "applied": applied, "version": have, "known": known}
    emit_one(given.output, "schema", fields, lines, id="version")


@db.command()
@common
def status(given: Given) -> None:
    """The schema's version, and whether this Perdure fits it. Exits with 1 if it does not."""
    run(_status(given))


async def _status(given: Given) -> None:
    place = find_database(given)
    url, have, apps, moved = place.url, 0, list[str](), dict[str, str]()
    if must_exist(place, migrated=False):
        known = known_to_sqlite()  # to open the file would write to it
        url = open_store(place.url, "", place.schema).url
    else:
        async with opened(given, needs_app=False, migrated=False) as store:
            url, (have, known) = store.url, await store.schema_version()
            apps = await store.apps() if have == known else []
            moved = await _moved(given, apps)
    lines = [f"{url}: schema version {have}, this Perdure wants {known}"]
    if have == known:
        lines.append(f"apps: {', '.join(apps) or 'none yet'}")
        lines += moved.values()
    else:
        lines.append("apply what is missing: perdure db migrate" if have < known else "upgrade Perdure here")
    fields = {"database": url, "version": have, "known": known, "current": have == known, "apps": apps,
              "moved": moved}  # fmt: skip
    emit_one(given.output, "schema", fields, lines, id="version")
    if have != known:
        raise click.exceptions.Exit(int(Code.NO))


async def _moved(given: Given, apps: list[str]) -> dict[str, str]:
    """Apps that do not live here, and what there is to say of it."""
    place, found = find_database(given), dict[str, str]()
    for app in apps:
        store = open_store(place.url, app, place.schema)
        await store.open()
        try:
            await refuse_moved(store)
        except ConfigError as error:
            found[app] = str(error)
        finally:
            await store.close()
    return found
