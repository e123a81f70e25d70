"""App: a named code base, its definitions, and its line to a database."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager  # as-is
from typing import Literal, Self

from perdure.api.client import LATE, Client
from perdure.api.router import Router
from perdure.api.store import maker
from perdure.errors import ConfigError, DefinitionError
from perdure.model.durations import Duration
from perdure.model.retention import Retain, read_retention
from perdure.runtime import aface
from perdure.runtime.face import Home
from perdure.serde.codec import Codec


class App(Router):
    """Durable workflows of one code base. Importing it opens nothing.

    >>> shop = App("shop")                      # embedded: ./.perdure/shop.db
    >>> # async with shop: …                    # works and calls
    >>> # async with shop.connect(): …          # only calls, beside `perdure run module:shop`

    ``database``: a URL (``postgresql://…``, ``sqlite:///…``), else ``PERDURE_DATABASE_URL``, else the embedded file.
    ``executor_id``: a label, default the host name. ``version``: of the code, default computed from it. ``lease``: how
    long this process may be silent before others take its work over, default 15 s. ``modules``: imported at launch, for
    the definitions in them. ``rollout``: whether a version that is launched for the first time gets new work at once
    (``auto``, the default), or only when an operator says so (``manual``).
    ``recovery``: whose unfinished work this process takes over: of every executor that is gone (``fleet``, the
    default), only of those with its own executor id (``own``), of all at launch and refusing to start beside a live
    one (``single``), or of nobody (``manual``). ``adopt``: unfinished work of versions that nobody runs any more goes
    on here if its history replays on this code (``replay_safe``, the default), or ``never``. ``listen``: the names of
    the queues that this process works; default all. ``codec``: encrypts or compresses the values that are stored.
    ``retain``: how long workflows are kept after their end, unless ``@app.workflow(retain=…)`` says otherwise: a
    duration, or one for each status; default for ever.
    ``bodies``, in ``perdure.sync`` only: where workflow bodies stand. In ``"threads"`` (the default), or in
    ``"greenlets"`` on the engine's event loop: nearly as fast, and as many, as those of the async face, and at its
    price: a body that computes or blocks outside its steps holds up all. Needs ``pip install 'perdure[greenlets]'``.
    ``patience``: how long a call from outside a workflow (start, send, status, cancel …) waits for a database that does
    not answer, else ``PERDURE_PATIENCE``, default for ever. Then it raises ``DatabaseUnavailable``, which says whether
    it may have taken effect (``unknown``): a start in the executor's own process is still written once the database is
    back, one from elsewhere only if it was on its way. Workflows and their steps wait for as long as it takes.

    Durations are timedeltas or seconds. What is left out here may come from the environment or ``[tool.perdure]`` in
    pyproject.toml, read when the app opens; what cannot be is a ``ConfigError`` then.
    """

    def __init__(
        self,
        name: str,
        *,
        database: str | None = None,
        executor_id: str | None = None,
        version: str | None = None,
        rollout: Literal["auto", "manual"] | None = None,
        adopt: Literal["replay_safe", "never"] | None = None,
        recovery: Literal["fleet", "own", "single", "manual"] | None = None,
        lease: Duration | None = None,
        listen: Collection[str] | None = None,
        modules: Collection[str] = (),
        codec: Codec | None = None,
        retain: Retain | None = None,
        patience: Duration | None = None,
        # sync-only: bodies: Literal["threads", "greenlets"] | None = None,
    ) -> None:
        if not name:
            raise ConfigError(f"app name {name!r} cannot be used: it is part of every key; give one: App('shop')")
        super().__init__()
        self._registry.app = name
        self._registry.codec = codec
        if retain is not None:
            self._registry.retention = read_retention(retain)
        if isinstance(modules, str):
            raise DefinitionError(f"modules={modules!r} is one text; give a list of modules: modules=[{modules!r}]")
        self.name = name
        arguments = {
            "database": database, "executor_id": executor_id, "version": version, "recovery": recovery, "lease": lease,
            "rollout": rollout,
            "adopt": adopt,
            "listen": listen,
            "patience": patience,
            # sync-only: "bodies": bodies,
        }  # fmt: skip
        self._home = Home(name, arguments, self._registry, maker(codec), (*LATE, *modules), aface.FACE)
        self._homes.home = self._home
        self.client = Client(home=self._home)

    async def open(self) -> None:
        """Launch: migrate, register, recover, work. Raises ``ConfigError``, ``DatabaseTrouble``, ``SchemaMismatch``."""
        await aface.open_home(self._home, works=True)

    async def close(self) -> None:
        """Drain: finish steps, hand the rest back, let go. Closing twice does nothing."""
        await aface.close_home(self._home)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def connect(self) -> Client:
        """Only call, run nothing, as ``async with app.connect(): …`` does in a web process beside executors."""
        return Client(home=self._home)

    def lifespan(self, asgi: object, /) -> AbstractAsyncContextManager[None]:  # as-is
        """Open while an ASGI application is: ``FastAPI(lifespan=app.lifespan)``."""
        return aface.lifespan(self._home)

    def run(self) -> None:
        """Work until SIGTERM (then drain and return). Blocks."""
        aface.run_blocking(self._home)

    def __repr__(self) -> str:
        return f"<App {self.name}>"
