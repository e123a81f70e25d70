"""What an error of a session means."""

from __future__ import annotations

import asyncpg
import psycopg
import pytest

from perdure.sessions.trouble import Meaning, meaning


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (asyncpg.SerializationError("…"), Meaning.CONFLICT),
        (asyncpg.DeadlockDetectedError("…"), Meaning.CONFLICT),
        (asyncpg.AdminShutdownError("terminating connection"), Meaning.TROUBLE),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), Meaning.TROUBLE),
        (asyncpg.InternalClientError("cannot switch to state 12"), Meaning.TROUBLE),
        (asyncpg.InterfaceError("connection is closed"), Meaning.TROUBLE),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), Meaning.OUTCOME),
        (psycopg.OperationalError("the connection is lost"), Meaning.TROUBLE),
        (ConnectionResetError(), Meaning.TROUBLE),
        (asyncpg.UniqueViolationError("…"), Meaning.TAKEN),
        (ValueError("the user's"), Meaning.OUTCOME),
    ],
)  # fmt: skip
def test_what_it_means(error: Exception, what: Meaning) -> None:
    assert meaning(error) is what
