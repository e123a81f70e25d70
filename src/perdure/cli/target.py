"""Which database and which app a command is about, and the open store of them.

The database: ``--database``, ``PERDURE_DATABASE_URL``, ``[tool.perdure]``, else the single file in ``./.perdure``.
The app: ``--app``, ``PERDURE_APP``, else the only one in the database. A command that reads changes nothing: it makes
no file and migrates no schema.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shlex
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import click
import msgspec

from perdure.cli.exits import Code, Exit
from perdure.cli.output import FORMATS
from perdure.config import file_url, masked, read_settings
from perdure.errors import ConfigError, SchemaMismatch
from perdure.operations.copy import refuse_moved
from perdure.store.base import Store
from perdure.store.open import open_store, sqlite_path

P = ParamSpec("P")
T = TypeVar("T")

FOLDER = ".perdure"


class Given(msgspec.Struct, frozen=True):
    """What was said on the command line."""

    database: str | None = None
    app: str | None = None
    output: str = "table"


class Place(msgspec.Struct, frozen=True):
    """A database, and where the choice came from."""

    url: str
    origin: str
    schema: str = "perdure"


def options(fn: Callable[P, T]) -> Callable[P, T]:
    """``--database``, ``--app`` and ``--output``."""
    for option in (
        click.option("-o", "--output", type=click.Choice(FORMATS), help="How to print it (default: table)."),
        click.option("-a", "--app", metavar="NAME", help="The app, if the database holds several."),
        click.option("-d", "--database", metavar="URL", help="sqlite:///file.db or postgresql://user@host/db."),
    ):
        fn = option(fn)
    return fn


def common(fn: Callable[Concatenate[Given, P], T]) -> Callable[P, T]:
    """A verb: it takes what every verb takes, here or before the verb's name, as its first argument."""

    @functools.wraps(fn)
    def verb(
        *args: Any, database: str | None = None, app: str | None = None, output: str | None = None, **kwargs: Any
    ) -> T:
        before = click.get_current_context().find_object(Given) or Given()
        given = Given(database or before.database, app or before.app, output or before.output)
        return fn(given, *args, **kwargs)

    return options(cast("Callable[P, T]", verb))


def find_database(given: Given, folder: Path | None = None) -> Place:
    """The database of this command. Raises ``Exit`` if there is none, ``ConfigError`` for several to choose from."""
    folder = folder or Path.cwd()
    named = given.app or os.environ.get("PERDURE_APP")
    settings = read_settings("cli", {"database": given.database}, folder=folder)
    if settings.chosen:
        origin = "--database" if given.database else settings.database_from
        return Place(settings.database, origin, settings.schema)
    files = sorted((folder / FOLDER).glob("*.db"))
    if named is not None and folder / FOLDER / f"{named}.db" in files:
        files = [folder / FOLDER / f"{named}.db"]
    if len(files) == 1:
        return Place(file_url(files[0]), f"the only file in ./{FOLDER}" if named is None else f"./{FOLDER}")
    if not files:
        raise Exit(
            Code.DATABASE,
            f"there is no database here: no file in {folder / FOLDER}. Go to the app's directory, or give "
            "--database URL, or set PERDURE_DATABASE_URL. To see Perdure work: perdure demo",
        )
    listed = "".join(f"\n  --database {shlex.quote(str(file.relative_to(folder)))}" for file in files)
    raise ConfigError(f"there are several databases in {folder / FOLDER}; say which one:{listed}")


def known_to_sqlite() -> int:
    """The schema version that a file should have: what is asked of one that is not to be opened."""
    from perdure.store.sqlite import migrate  # noqa: PLC0415 - needs its driver

    return migrate.known()


@contextlib.asynccontextmanager
async def opened(
    given: Given, *, needs_app: bool = True, may_be_new: bool = False, migrated: bool = True, changes: bool = False
) -> AsyncGenerator[Store, None]:
    """The store of this command's app, open. ``may_be_new``: an app that this database has not seen is no mistake.

    ``changes``: refused where the app was moved away from, for what is ordered there nobody carries out any more, and
    what is deleted there ``db copy --undo`` cannot bring back.
    Raises ``ConfigError``, ``DatabaseTrouble``, ``SchemaMismatch``, ``Exit``.
    """
    place = find_database(given)
    wanted = given.app or os.environ.get("PERDURE_APP") or ""
    must_exist(place, migrated=migrated)
    store = open_store(place.url, wanted, place.schema)
    await store.open()
    try:
        if migrated:
            await check_schema(store, place)
            if needs_app:
                name = choose_app(wanted, await store.apps(), store.url, may_be_new=may_be_new)
                if name != store.app:
                    await store.close()
                    store = open_store(place.url, name, place.schema)
                    await store.open()
            if changes:
                try:
                    await refuse_moved(store)
                except ConfigError as error:
                    raise Exit(Code.DATABASE, str(error)) from None
        yield store
    finally:
        await store.close()


def must_exist(place: Place, *, migrated: bool = True) -> bool:
    """A file that is not there is a mistake of the caller's, not a new database.

    ``migrated``: nor is an empty one, to open which would write its header; else the answer is whether it is one.
    """
    path = sqlite_path(place.url)
    if path is None:
        return False
    try:
        there, empty = Path(path).exists(), Path(path).is_file() and not Path(path).stat().st_size
    except OSError as error:
        raise Exit(Code.DATABASE, f"cannot look at {path} (from {place.origin}): {error.strerror}") from None
    if not there:
        raise Exit(
            Code.DATABASE,
            f"there is no database file {path} (from {place.origin}). An app makes it when it first runs; "
            f"to make an empty one: perdure db migrate --database {shlex.quote(place.url)}",
        )
    if empty and migrated:
        raise SchemaMismatch(_without_tables(place))
    return empty


async def check_schema(store: Store, place: Place) -> None:
    """Refuse what the queries of this library do not fit. Raises ``SchemaMismatch``."""
    have, known = await store.schema_version()
    if have == known:
        return
    raise SchemaMismatch(
        _not_as_wanted(place, f"has schema version {have}, this Perdure wants {known}")
        if have
        else _without_tables(place)
    )


def _without_tables(place: Place) -> str:
    return _not_as_wanted(place, "has no tables of Perdure yet")


def _not_as_wanted(place: Place, what: str) -> str:
    """With the command that mends it, for a shell; the URL is as it was given, for another form may be another file."""
    url = masked(place.url)
    return f"{url} {what}. Apply what is missing: perdure db migrate --database {shlex.quote(url)}"


def choose_app(wanted: str, known: list[str], url: str, *, may_be_new: bool) -> str:
    """The app of this command. Raises ``Exit``: unknown, or several to choose from."""
    if wanted and (wanted in known or may_be_new):
        return wanted
    listed = ", ".join(known)
    if wanted:
        there = f"it holds: {listed}" if known else "it holds none yet"
        raise Exit(Code.NOT_FOUND, f"there is no app {wanted!r} in {url}; {there}")
    if not known:
        raise Exit(Code.NOT_FOUND, f"no app has used {url} yet; run one (perdure run MODULE:APP), or give --app NAME")
    if len(known) > 1:
        raise Exit(Code.USAGE, f"{url} holds several apps; say which one: --app {' | '.join(known)}")
    return known[0]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(main)


def shown_place(place: Place) -> str:
    """A database for people."""
    return f"{masked(place.url)} (from {place.origin})"
