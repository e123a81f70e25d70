"""The Postgres dialect: asyncpg, hand-written SQL, one round trip for a batch."""

from perdure.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
