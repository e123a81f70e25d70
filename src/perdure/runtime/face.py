"""What both faces share: finding the engine of a call, and questions about where the caller stands."""

from __future__ import annotations

import _thread
import importlib
import os
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Protocol

from perdure.client.bounded import Bounded
from perdure.client.line import Line
from perdure.config import read_settings
from perdure.definitions import Registry
from perdure.errors import ConfigError, Misuse, NotOpen, WrongFace
from perdure.runtime import forks
from perdure.runtime.context import STEP, async_body, body, sync_body
from perdure.store.base import Store

if TYPE_CHECKING:  # a type here; ``new_engine`` loads it
    from perdure.runtime.engine import Engine


class MakeStoreOf(Protocol):
    """Opens stores; given by the public face, so that this floor knows no dialect."""

    def __call__(self, url: str, app: str, schema: str) -> Store: ...


class Home:
    """Where definitions and handles belong: an app or a client. Holds the engine while it is open."""

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        registry: Registry,
        make_store: MakeStoreOf,
        modules: tuple[str, ...] = (),
        face: str = "perdure",
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.registry = registry
        self.make_store = make_store
        self._with = "with" if face == "perdure.sync" else "async with"  # for messages
        self.modules = modules  # loaded where it opens
        self._engine: Engine | None = None
        self._opening: dict[int, object] = {}  # by process, since a child of a fork opens for itself: who opens now
        self._forked = False

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    def engine(self) -> Engine:
        """Raises ``NotOpen`` naming the forms of opening."""
        if self._engine is None:
            if self._forked:
                raise NotOpen(
                    f"app {self.name!r} was open when process {os.getppid()} forked this one ({os.getpid()}): the "
                    f"connections and the executor are the parent's. Open it here: {self._with} app: …"
                )
            if not self.registry.app:
                raise NotOpen(
                    f"{self._whose} is not open, or closed already: {self._with} Client(…) as client: …, or "
                    "client.open() … client.close()"
                )
            raise NotOpen(
                f"app {self.name!r} is not open. To work and call: {self._with} app: … (app.run(), "
                f"perdure run module:app, FastAPI(lifespan=app.lifespan)); only to call: {self._with} app.connect(): …"
            )
        return self._engine

    @property
    def _whose(self) -> str:
        """For messages: no app's where no app is declared, but that of a client alone."""
        if self.registry.app:
            return f"app {self.name!r}"
        return f"the client of app {self.name!r}" if self.name else "the client"

    def opened(self, engine: Engine | None) -> None:
        self._engine = engine
        self._opening.pop(os.getpid(), None)
        self._forked = False
        if engine is not None:
            forks.mind(self)

    def forked(self) -> None:
        """In a forked child: what is open is the parent's."""
        if self._engine is not None:
            self._engine.forked()
            self._engine, self._forked = None, True

    async def find_name(self) -> str:
        """The only app of the database, for a client that was given none. Raises ``ConfigError``: none, or several."""
        settings = read_settings("client", self.arguments, given_to="Client")
        if not settings.chosen:
            raise ConfigError(
                "a client needs a database or an app: Client(url), Client(app=…), or PERDURE_DATABASE_URL"
            )
        store = self.make_store(settings.database, "", settings.schema)
        await store.open()
        try:
            apps = await store.apps() if (await store.schema_version())[0] else []
        finally:
            await store.close()
        if len(apps) != 1:
            there = f"it holds several: {', '.join(apps)}" if apps else "no app has used it yet"
            raise ConfigError(f"which app of {store.url}? {there}; say Client(…, app='name')")
        return apps[0]

    def definitions(self) -> Registry:
        """All that the app declares, its ``modules=`` included: they are imported now."""
        for module in self.modules:
            importlib.import_module(module)
        return self.registry

    def new_engine(self, *, works: bool) -> Engine:
        """Import the app's modules, read the settings, and make the engine that is to be opened.

        Nobody else may open until ``opened`` says how that ended. Raises ``ConfigError`` if somebody has, or is at it.
        """
        from perdure.runtime.engine import Engine  # noqa: PLC0415  a third of the house, which who only declares can spare

        mine = object()
        if self._opening.setdefault(os.getpid(), mine) is not mine:  # in one step: threads open, too
            raise ConfigError(f"{self._whose} is being opened already; open it once, and share the open one")
        try:
            if self._engine is not None:
                raise ConfigError(f"{self._whose} is open already; close it first, or share the open one")
            refuse_green_threads()
            settings = read_settings(self.name, self.arguments, given_to="App" if self.registry.app else "Client")
            return Engine(
                settings,
                self.definitions(),
                lambda: self.make_store(settings.database, settings.app, settings.schema),
                works=works,
            )
        except BaseException:
            self._opening.pop(os.getpid())
            raise


def refuse_green_threads() -> None:
    """Raise ``ConfigError`` where threads are greenlets: the lease would not be renewed beside a loop of theirs."""
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        maker = getattr(_thread.start_new_thread, "__module__", "") or "a library"
        raise ConfigError(
            f"threads are no threads of the system here: {maker.partition('.')[0]} has put its own in their place, and "
            "Perdure's event loops would stand in each other's way. Leave threads alone (gevent: "
            "monkey.patch_all(thread=False, queue=False); eventlet: monkey_patch(thread=False)), or use Perdure in a "
            "process of its own: perdure run module:app"
        )


def outside_line(engine: Engine) -> Line:
    """The line for a call from outside, with the patience that was set.

    A step has none: trouble with the database fails no workflow.
    """
    seconds = engine.settings.patience
    return engine.line if seconds is None or STEP.get() is not None else Bounded(engine.line, seconds)


def home_among(homes: Sequence[Home], name: str) -> Home:
    """Whose a call is of what several apps include: that of the workflow which is calling, else the only one open.

    Raises ``Misuse`` where several are, ``NotOpen`` where none is, naming them.
    """
    step = STEP.get()
    execution = body() or (None if step is None else step.execution)
    if execution is not None:
        return next((home for home in homes if home.registry is execution.host.registry), homes[-1])
    found = [home for home in homes if home.is_open]
    if len(found) == 1:
        return found[0]
    names = " and ".join(repr(home.name) for home in found or homes)
    through = f"call it through the one that is meant: app.client.workflow({name!r}, returns=…), app.client.handle(id)"
    if found:
        raise Misuse(f"workflow {name!r} is of a Router that several open apps include, {names}; {through}")
    raise NotOpen(
        f"workflow {name!r} is of a Router that several apps include, {names}, and none of them is open: open one, or "
        f"{through}"
    )


def refuse_foreign(home: Home, execution: Any) -> None:
    """Raise ``Misuse`` if a body speaks through another app.

    What it asks for is recorded and done in its own, where the same id or name is another workflow's, or nobody's.
    """
    registry = execution.host.registry
    if home.registry is registry or home.name in ("", registry.app) or not registry.app:
        return
    raise Misuse(
        f"a call of app {home.name!r} was made in the body of {execution.row.name!r}, a workflow of app "
        f"{registry.app!r}. What a body does is done in its own app, where that name or id is another workflow's or "
        f"nobody's: do it in a step, through a client of app {home.name!r} (Client(…, app={home.name!r}))"
    )


def refuse_other(face: str, what: str) -> None:
    """Raise ``WrongFace`` if the caller stands in a workflow body of the other face."""
    if face == "perdure" and sync_body() is not None:
        raise WrongFace(
            f"{what} of perdure was called in a sync workflow body; import it from perdure.sync there "
            "(from perdure.sync import …): the face decides how you call"
        )
    if face == "perdure.sync" and async_body() is not None:
        raise WrongFace(
            f"{what} of perdure.sync was called in an async workflow body; import it from perdure there "
            "(from perdure import …) and await it: the face decides how you call"
        )
