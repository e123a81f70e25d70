"""``perdure run MODULE:APP``: an executor in the foreground. SIGTERM or Ctrl-C drains, a second hands back at once."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any, cast

import click

import perdure.sync
from perdure.cli.exits import Code, Exit
from perdure.cli.output import note, say, shortened
from perdure.cli.target import Given, common
from perdure.config import Settings, masked
from perdure.runtime.drained import until_drained

AnyApp = perdure.App | perdure.sync.App


@click.command("run")
@common
@click.argument("target", metavar="MODULE:APP")
@click.option("--executor-id", metavar="LABEL", help="A label for this process (default: the host name).")
@click.option("--exit-when-drained", is_flag=True, help="End (with 0) once nothing is left for this version.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run_(given: Given, target: str, executor_id: str | None, exit_when_drained: bool, log_level: str) -> None:
    """Run an app's workflows until SIGTERM or Ctrl-C, then hand back what is unfinished.

    MODULE:APP names a module (the current directory is searched first) and the App in it; :APP may be left out if the
    module has one app. A second signal interrupts steps and hands back at once, a third ends the process.
    """
    _log(log_level)
    app = load_app(target)
    if given.app not in (None, app.name):
        raise Exit(Code.USAGE, f"{target} is the app {app.name!r}, not {given.app!r} as --app says")
    for setting, value in (("database", given.database), ("executor_id", executor_id)):
        if value is not None:
            home_of(app).arguments[setting] = value
    if isinstance(app, perdure.App):
        asyncio.run(_serve(app, exit_when_drained=exit_when_drained))
    else:
        _serve_sync(app, exit_when_drained=exit_when_drained)


# -- finding it


def load_app(target: str) -> AnyApp:
    """Import the module and find the app in it. Raises ``Exit`` with a guess of what was meant."""
    module_name, _, attribute = target.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        guess = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise Exit(
            Code.USAGE, f"{target!r} is a path; give the module's name: perdure run {guess}:{attribute or 'APP'}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise Exit(
            Code.USAGE, f"{target!r} does not name a module; write MODULE:APP, for example: perdure run shop:app"
        )
    module = _import(module_name)
    names = cast("dict[str, Any]", vars(module))
    apps: dict[str, AnyApp] = {name: value for name, value in names.items() if isinstance(value, AnyApp)}
    if not attribute:
        if len(set(map(id, apps.values()))) != 1:
            raise Exit(Code.USAGE, f"say which app of {module_name}: {_choices(module_name, apps)}")
        return next(iter(apps.values()))
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            guess = f"did you mean {module_name}:{close[0]}? " if close else ""
            raise Exit(Code.USAGE, f"module {module_name!r} has no {attribute!r}; {guess}{_choices(module_name, apps)}")
        found = getattr(found, part)
    if not isinstance(found, AnyApp):
        raise Exit(Code.USAGE, f"{target} is a {type(found).__name__}, not an App; {_choices(module_name, apps)}")
    return found


def _choices(module: str, apps: dict[str, AnyApp]) -> str:
    if not apps:
        return f'there is no App in it; write app = App("name") in {module}'
    return "its apps: " + ", ".join(f"{module}:{name}" for name in apps)


def _import(name: str) -> Any:
    """Import a module, from the current directory first."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (name == missing.name or name.startswith(missing.name + ".")):
            raise Exit(Code.USAGE, _no_module(name, missing.name)) from None
        error: Exception = missing
    except Exception as raised:
        error = raised
    lines = traceback.format_exception(error)
    frames = [line for line in lines if "importlib" not in line.partition("\n")[0] and __file__ not in line]
    raise Exit(Code.USAGE, f"module {name!r} cannot be imported:\n{''.join(frames).rstrip()}")


def _no_module(name: str, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    folder = Path.cwd().joinpath(*parent.split(".")) if parent else Path.cwd()
    here = [p.stem for p in folder.glob("*.py")] + [p.parent.name for p in folder.glob("*/__init__.py")]
    close = difflib.get_close_matches(last, here, n=1)
    prefix = f"{parent}." if parent else ""
    guess = f"did you mean {prefix}{close[0]}?" if close else f"here are: {', '.join(sorted(here)[:10]) or 'none'}"
    return f"there is no module {missing!r}, neither in {folder} nor installed; {guess}"


def home_of(app: AnyApp) -> Any:
    """Where an app keeps what it was given."""
    owner: Any = app
    return owner._home  # noqa: SLF001 - the command line stands in for the one who wrote App(…)


# -- serving it


def _log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _announce(app: AnyApp) -> None:
    """One line: what is served, from where, as whom."""
    home = home_of(app)
    settings: Settings = home.engine().settings
    names = sorted(home.registry.workflows)
    served = shortened(", ".join(names), 200) if names else "no workflows"
    with contextlib.suppress(OSError):  # a full disk: what is printed is not what is served
        say(
            f"perdure: serving app {app.name!r} ({served}) from {masked(settings.database)} as executor "
            f"{settings.executor_id} (pid {os.getpid()}); Ctrl-C or SIGTERM drains"
        )
        sys.stdout.flush()


class Drain:
    """What signals do once a drain is under way: the second hands back at once, the third ends the process."""

    def __init__(self, app: AnyApp) -> None:
        self.hurried = False
        self._engine = home_of(app).engine()
        self._executor = self._engine.executor
        for number in _SIGNALS:
            signal.signal(number, self._again)
        note("draining: steps under way are finished, the rest is handed back")

    def _again(self, _number: int, _frame: FrameType | None) -> None:
        if self.hurried:
            note("stopped at once; what was running is taken over by another executor, or by the next start")
            os._exit(int(Code.INTERRUPTED))
        self.hurried = True
        note("stopped at once: steps under way are interrupted, and handed back if the database takes it")
        self._engine.hurry()

    def over(self) -> None:
        """All is handed back, or cannot be. Ends the process if a thread of an interrupted step would keep it."""
        back = self._executor is None or self._executor.handed_back
        note("drained" if back else "stopped; what was not handed back is taken over when the lease has run out")
        if self.hurried:
            os._exit(int(Code.INTERRUPTED))


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What comes so soon after the first signal is no second: a terminal, ``timeout`` and supervisors send theirs to the
# process and to its group, or pass on what the process got itself.
TOGETHER_SECONDS = 0.1


async def _serve(app: perdure.App, *, exit_when_drained: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    async with app:
        _announce(app)
        watch = _watch(app, lambda: loop.call_soon_threadsafe(stop.set)) if exit_when_drained else None
        await stop.wait()
        await asyncio.sleep(TOGETHER_SECONDS)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        _no_longer(watch)
        drain = Drain(app)
    drain.over()


def _serve_sync(app: perdure.sync.App, *, exit_when_drained: bool) -> None:
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: stop.set())
    with app:
        _announce(app)
        watch = _watch(app, stop.set) if exit_when_drained else None
        stop.wait()
        time.sleep(TOGETHER_SECONDS)
        _no_longer(watch)
        drain = Drain(app)
    drain.over()


def _watch(app: AnyApp, then: Callable[[], object]) -> Future[None]:
    """Call ``then`` when nothing is left for this executor's version."""
    engine = home_of(app).engine()
    watch = asyncio.run_coroutine_threadsafe(until_drained(engine), engine.loop)

    def seen(done: Future[None]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            logging.getLogger("perdure").error("whether the version is drained cannot be told", exc_info=error)
        else:
            note(f"version {engine.executor.version} is drained; this executor ends")
            then()

    watch.add_done_callback(seen)
    return watch


def _no_longer(watch: Future[None] | None) -> None:
    if watch is not None:
        watch.cancel()
