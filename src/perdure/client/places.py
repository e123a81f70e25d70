"""What a line knows of databases: its own, and those in which transactions keep a table of their own."""

from __future__ import annotations

from perdure.store.base import Store


class Places:
    """Asked of the databases themselves, and asked again where an answer may be old."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._home = ""
        self.tables: set[str] = set()  # places where the table of transactions was seen
        self.committed: dict[str, int] = {}  # transactions of this process, by such a place

    async def home(self, there: str) -> str:
        """The app's own database; what is known of it is asked anew if it is not the one that is ``there``.

        "" asks anew.
        """
        if not there or there != self._home:  # a server that was started again is another by its words
            self._home = await self._store.place()
        return self._home
