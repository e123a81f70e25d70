"""The schemes that executors have told to the database: what people look at where the code is not."""

from __future__ import annotations

from collections.abc import Collection

from perdure.cli.exits import Code, Exit
from perdure.schemes import stored
from perdure.schemes.form import Scheme
from perdure.serde.codec import is_coded
from perdure.store.base import Store

NOBODY = "no executor has told the scheme of {what} to this database; give the code: --code MODULE:APP"


async def stored_scheme(store: Store, name: str, version: str) -> Scheme:
    """The scheme of a process by its version, else by the one launched last that has it. Raises ``Exit``."""
    known = await store.schemes()
    text = known.get(version, {}).get(name) or next((of[name] for of in known.values() if name in of), None)
    if text is None:
        raise Exit(Code.NOT_FOUND, NOBODY.format(what=repr(name)))
    try:
        return stored.read(text)
    except ValueError as error:
        raise Exit(Code.NO, f"the scheme of {name!r} was told by another Perdure ({error}); give --code") from None


async def refuse_unfit(store: Store, name: str, values: Collection[str]) -> None:
    """Raise ``Exit`` for parameters that no version of a process takes whose scheme was told to the database.

    Whether their values fit their types is for the code to say.
    """
    told = [of[name] for of in (await store.schemes()).values() if name in of]
    try:
        refusals = [stored.read(text).refusal(values) for text in told]
    except ValueError:  # told by another Perdure
        return
    if refusals and "" not in refusals:
        raise Exit(Code.USAGE, refusals[0])


def must_be_plain(data: bytes) -> None:
    """Raise ``Exit`` for what only the codec of the app can read."""
    if is_coded(data):
        raise Exit(Code.NO, "what is stored of it is coded; give the code, which has the codec: --code MODULE:APP")
