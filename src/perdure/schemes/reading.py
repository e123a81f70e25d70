"""``read``: a scheme from wherever it is written, for ``class Vacation(Process, scheme=read("vacation.yaml"))``."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import msgspec

from perdure.errors import SchemeError
from perdure.schemes.documents import of_document, of_json, of_yaml
from perdure.schemes.draft import Draft
from perdure.schemes.envelope import Envelope, envelop, functions_of
from perdure.schemes.statemachine import is_chart, of_chart
from perdure.schemes.transitions import of_transitions

Source: TypeAlias = str | PathLike[str] | Mapping[str, Any] | type


def read(source: Source, /, *, actions: object = None, **envelope: Unpack[Envelope]) -> Draft:
    """Read a scheme, for a class to take.

    ``source`` is a file (``.yaml``, ``.yml``, ``.json``, ``.scxml``, ``.xml``), a mapping (such a document, or what
    ``transitions.Machine`` takes), or a class of ``python-statemachine``. ``actions`` is a module, class or mapping
    with its functions, beside those of the class that takes it. The rest says what the source does not (``Envelope``)::

        class Vacation(Process, scheme=read("vacation.scxml", timers={"stale": "3d"})):
            author: str
            async def on_enter_booking(self) -> None: ...

    Raises ``SchemeError`` for what a source may not have. Names are looked up when the class is made.
    """
    draft = _draft(source)
    if actions is not None:
        draft = msgspec.structs.replace(draft, functions={**(draft.functions or {}), **functions_of(actions)})
    return envelop(draft, envelope)


def _draft(source: Source) -> Draft:
    if is_chart(source):
        return of_chart(source)
    if isinstance(source, Mapping):
        states = source.get("states")
        if "machine" in source or isinstance(states, Mapping):
            return of_document(source, "the document")
        return of_transitions(source, "the configuration")
    if isinstance(source, type):
        raise SchemeError(
            f"{source!r} is no class of python-statemachine; write class {source.__name__}(Process) instead"
        )
    path = Path(fspath(source))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemeError(f"{path} cannot be read: {error}") from None
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return _document(of_yaml(text, str(path)), path)
        case ".json":
            return _document(of_json(text, str(path)), path)
        case ".scxml" | ".xml":
            from perdure.schemes.scxml import of_scxml  # noqa: PLC0415 - brings a parser of XML, which few need

            return of_scxml(text, str(path))
        case other:
            raise SchemeError(f"{path} ends in {other!r}; a scheme is .yaml, .yml, .json, .scxml or .xml")


def _document(found: Mapping[str, Any], path: Path) -> Draft:
    if isinstance(found.get("states"), list):
        return of_transitions(found, str(path))
    return of_document(found, str(path))
