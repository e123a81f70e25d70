"""``perdure process diagram``: the picture of a scheme, and where a process of it stands.

A scheme is read from the database, where the executors of each version have told it, from code, or from a file.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from perdure.cli.exits import Code, Exit
from perdure.cli.output import emit_one
from perdure.cli.run import AnyApp, home_of, load_app
from perdure.cli.stored_schemes import NOBODY, must_be_plain, stored_scheme
from perdure.cli.target import Given, Place, check_schema, common, find_database, must_exist, opened, run
from perdure.config import read_settings
from perdure.model.processes import HISTORY, Entry, ProcessStep, steps_of
from perdure.model.streams import StreamAsk
from perdure.operations.look import not_found
from perdure.schemes.build import build
from perdure.schemes.drawn import counted
from perdure.schemes.form import Scheme
from perdure.schemes.mermaid import mermaid
from perdure.schemes.reading import read
from perdure.schemes.svg import svg
from perdure.store.base import Store

FILES = (".yaml", ".yml", ".json", ".scxml", ".xml")
ENTRY = msgspec.json.Decoder(Entry)


@click.command("diagram")
@common
@click.argument("id", required=False)
@click.option("--code", "source", metavar="MODULE:APP|FILE", help="Where the scheme is written; default: the database.")
@click.option("--process", "name", metavar="NAME", help="Which, if there are several and no ID is given.")
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), default="mermaid", show_default=True)
def diagram(given: Given, id: str | None, source: str | None, name: str | None, form: str) -> None:
    r"""Draw a scheme: Mermaid for a README, or a picture (SVG), on standard output.

    As executors have told it, of the code, or of a scheme file (.yaml, .json, .scxml), which is checked on the way.
    With ID as that process stands: its state lit, how often it took each transition on the edges.

    \b
    perdure process diagram doc-7 --code desk:app --format svg > doc-7.svg
    """
    if source is None:
        scheme, history = run(_told(given, id, name))
    elif Path(source).suffix.lower() in FILES:
        if id is not None or name is not None:
            raise Exit(Code.USAGE, f"{source} is a file; a process, and --process, need the code: MODULE:APP")
        draft = read(source)
        scheme, history = build(msgspec.structs.replace(draft, name=draft.name or Path(source).stem)), None
    else:
        app = load_app(source)
        found = None if id is None else run(_history(given, app, id))
        scheme = _scheme(app, source, name if found is None else found[0])
        history = None if found is None else found[1]
    state = history[-1].target if history else None
    draw = mermaid if form == "mermaid" else svg
    lit = state if state is not None and scheme.has(state) else None  # newer code may not have it
    text = draw(scheme, current=lit, counts=None if history is None else counted(history))
    shown = {"process": scheme.name, "id": id, "state": state, "format": form, "text": text}
    emit_one(given.output, "diagram", shown, text.splitlines(), id="process")


async def _told(given: Given, id: str | None, name: str | None) -> tuple[Scheme, list[ProcessStep] | None]:
    """A scheme of the database, and what the process of that id did."""
    async with opened(given) as store:
        if id is not None:
            row = (await store.rows([id])).get(id)
            if row is None:
                raise not_found(id, store.app)
            return await stored_scheme(store, row.name, row.version), await _steps(store, id)
        known = sorted({one for of_version in (await store.schemes()).values() for one in of_version})
        if name is None and len(known) != 1:
            listed = " | ".join(known)
            raise Exit(Code.USAGE, f"say which: --process {listed}" if known else NOBODY.format(what="any process"))
        return await stored_scheme(store, name or known[0], ""), None


async def _steps(store: Store, id: str) -> list[ProcessStep]:
    entries: list[Entry] = []
    while True:
        [page] = await store.streams([StreamAsk(id, HISTORY, len(entries))])
        if page is None or not page.values:
            return steps_of(entries)
        must_be_plain(page.values[0])
        entries += map(ENTRY.decode, page.values)


def _scheme(app: AnyApp, source: str, name: str | None) -> Scheme:
    """The process of that name; the only one if none is named. Raises ``Exit``."""
    workflows = home_of(app).registry.workflows.values()
    known: dict[str, Scheme] = {one.name: one.process.scheme for one in workflows if one.process is not None}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name in known:
        return known[name]
    listed = ", ".join(sorted(known))
    if not known:
        raise Exit(Code.USAGE, f"{source} has no processes; declare one: @app.process above class X(Process)")
    if name is None:
        raise Exit(Code.USAGE, f"{source} has several processes; say which: --process {' | '.join(sorted(known))}")
    raise Exit(Code.NOT_FOUND, f"{source} has no process {name!r}; it has: {listed}")


async def _history(given: Given, app: AnyApp, id: str) -> tuple[str, list[ProcessStep]]:
    """The name of a process and what it did."""
    store = await _open(given, app)
    try:
        row = (await store.rows([id])).get(id)
        if row is None:
            raise not_found(id, app.name)
        return row.name, await _steps(store, id)
    finally:
        await store.close()


async def _open(given: Given, app: AnyApp) -> Store:
    """The store that an executor of this app would open, its codec with it; nothing is made or migrated."""
    home = home_of(app)
    settings = read_settings(app.name, {**home.arguments, "database": given.database or home.arguments.get("database")})
    place = Place(settings.database, settings.database_from, settings.schema)
    if not settings.chosen:  # as for every other command: the single file in ./.perdure
        place = find_database(msgspec.structs.replace(given, app=app.name))
    must_exist(place)
    store: Store = home.make_store(place.url, app.name, place.schema)
    await store.open()
    try:
        await check_schema(store, place)
    except BaseException:
        await store.close()
        raise
    return store
