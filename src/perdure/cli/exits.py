"""How a command ends: the exit codes, one meaning each, and which error means which.

Scripts may rely on them: they are listed in ``perdure --help`` and in ``docs/reference/cli.md``, and a test compares.
"""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click

from perdure.cli.output import redacted
from perdure.errors import (
    BatchConflict,
    BatchNotFound,
    ConfigError,
    DatabaseTrouble,
    DatabaseUnusable,
    DefinitionError,
    ExecutorAlive,
    ExecutorNotFound,
    PerdureError,
    ResultTimeout,
    ScheduleConflict,
    ScheduleNotFound,
    SchemaMismatch,
    StepNotFound,
    Unserializable,
    VersionNotFound,
    WorkflowNotFound,
)


class Code(IntEnum):
    """The exit codes."""

    OK = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    DATABASE = 4
    NOT_YET = 5
    INTERRUPTED = 130


MEANINGS: dict[Code, str] = {
    Code.OK: "done, and the answer is yes",
    Code.NO: "the answer is no: the workflow failed, a check found a fault, the command was refused",
    Code.USAGE: "the command or a setting cannot be understood",
    Code.NOT_FOUND: "no such workflow, run, step, schedule, version, batch, executor or app",
    Code.DATABASE: "the database is missing, cannot be reached or used, refuses this role, or has another schema",
    Code.NOT_YET: "the time to wait has passed; what was asked for goes on, or begins when an executor is there",
    Code.INTERRUPTED: "interrupted (Ctrl-C); what was asked for goes on",
}

_CODES: tuple[tuple[type[PerdureError], Code], ...] = (
    (WorkflowNotFound, Code.NOT_FOUND),
    (StepNotFound, Code.NOT_FOUND),
    (ExecutorNotFound, Code.NOT_FOUND),
    (ScheduleNotFound, Code.NOT_FOUND),
    (VersionNotFound, Code.NOT_FOUND),
    (BatchNotFound, Code.NOT_FOUND),
    (ScheduleConflict, Code.NO),
    (BatchConflict, Code.NO),
    (ExecutorAlive, Code.NO),
    (SchemaMismatch, Code.DATABASE),
    (DatabaseTrouble, Code.DATABASE),
    (DatabaseUnusable, Code.DATABASE),
    (ConfigError, Code.USAGE),
    (DefinitionError, Code.USAGE),
    (Unserializable, Code.USAGE),
    (ResultTimeout, Code.NOT_YET),
)


class Exit(click.ClickException):
    """Ends the command with a message and a code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(redacted(message))
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """What click exits with."""
        return int(self.code)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"perdure: {self.message}", file=file, err=True)


def code_of(error: PerdureError) -> Code:
    """The exit code for an error of the library's own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.NO)


def exit_of(error: PerdureError) -> Exit:
    """An error of the library's own, as the end of a command."""
    return Exit(code_of(error), str(error) or type(error).__name__)
