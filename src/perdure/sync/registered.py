# Produced from perdure/api/registered.py by tools/async_to_sync.py; do not edit.
"""What an app knows of a process' class: apart from the class itself, and loaded by ``@app.process`` first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from perdure.definitions import WorkflowDef
from perdure.errors import DefinitionError
from perdure.model.retention import Retention
from perdure.model.states import Versioning
from perdure.runtime import sface
from perdure.runtime.process_body import args_of, body_of, storable
from perdure.schemes.declaration import Declaration
from perdure.schemes.declared import declaration_of
from perdure.serde.values import ArgsShape, Shape
from perdure.sync.workflow import Workflow


class Registered:
    """What ``@app.process`` made of a class: the workflow that runs it."""

    def __init__(self, declaration: Declaration, workflow: Workflow[..., Any], args: ArgsShape) -> None:
        self.declaration = declaration
        self.workflow = workflow
        self.args = args
        self.name = workflow.name


def define(
    cls: Any,
    name: Callable[[Any], str],
    on_crash: Literal["status", "resume"] | None,
    *,
    max_deaths: int,
    versioning: Versioning,
    queue: str | None,
    retention: Retention | None,
) -> WorkflowDef:
    """The workflow that interprets the scheme of a class. Raises ``DefinitionError``."""
    declaration = storable(declaration_of(cls)).named(name=name(cls), on_crash=on_crash)
    face = sface.FACE
    if (other := getattr(cls, "__face__", face)) != face:
        raise DefinitionError(
            f"process {declaration.scheme.name} ({declaration.place}) is a class of {other}.process, and its app is "
            f"one of {face}: write from {face}.process import Process, State; the face decides how you call"
        )
    is_async = face == "perdure"
    blocking = [fn for fn in declaration.functions if declaration.is_async(fn)]
    if blocking and not is_async:
        raise DefinitionError(
            f"{blocking[0]} of process {declaration.scheme.name} ({declaration.place}) must be 'def' in perdure.sync"
        )
    args = args_of(declaration.scheme)
    return WorkflowDef(
        name=declaration.scheme.name,
        fn=body_of(declaration, args, is_async=is_async),
        is_async=is_async,
        args=args,
        result=Shape.of(dict[str, Any]),
        place=declaration.place,
        max_deaths=max_deaths,
        versioning=versioning,
        queue=queue,
        retention=retention,
        process=declaration,
    )


def register(cls: Any, definition: WorkflowDef, workflow: Workflow[..., Any]) -> None:
    """Let a class know its workflow."""
    assert definition.process is not None, "made by define()"
    cls.__registered__ = Registered(definition.process, workflow, definition.args)
