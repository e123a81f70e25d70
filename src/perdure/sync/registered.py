# Produced from perdure/api/registered.py by tools/async_to_sync.py; do not edit.
"""What an app knows of a process' class: apart from the class itself, which few programs use."""

from __future__ import annotations

from typing import Any

from perdure.schemes.declaration import Declaration
from perdure.serde.values import ArgsShape
from perdure.sync.workflow import Workflow


class Registered:
    """What ``@app.process`` made of a class: the workflow that runs it."""

    def __init__(self, declaration: Declaration, workflow: Workflow[..., Any], args: ArgsShape) -> None:
        self.declaration = declaration
        self.workflow = workflow
        self.args = args
        self.name = workflow.name


def register(cls: Any, registered: Registered) -> None:
    """Let a class know its workflow."""
    cls.__registered__ = registered
