"""The bodies of an executor: of which class each workflow's is, by its colour and the setting ``bodies``."""

from __future__ import annotations

from perdure.definitions import WorkflowDef
from perdure.errors import ConfigError
from perdure.runtime.async_body import AsyncExecution
from perdure.runtime.execution import Execution
from perdure.runtime.sync_body import SyncExecution
from perdure.runtime.thread_body import ThreadExecution


class Bodies:
    """Where an executor's bodies stand: awaited ones on loops of their own, blocking ones as ``blocking`` says."""

    def __init__(self, blocking: type[SyncExecution] = ThreadExecution) -> None:
        self.blocking = blocking

    @property
    def threads(self) -> bool:
        """Whether a blocking body has a thread of its own, so that its first burst can be run by whoever starts it."""
        return issubclass(self.blocking, ThreadExecution)

    def of(self, definition: WorkflowDef) -> type[Execution]:
        return AsyncExecution if definition.is_async else self.blocking


def bodies_in(where: str) -> Bodies:
    """Bodies with the blocking ones in ``"threads"`` or ``"greenlets"``. Raises ``ConfigError`` without the package."""
    if where == "threads":
        return Bodies()
    try:
        from perdure.runtime.greenlet_body import GreenletExecution  # noqa: PLC0415  an extra
    except ImportError as missing:
        raise ConfigError(
            f"bodies={where!r} needs the package greenlet, which is not installed ({missing}): "
            "pip install 'perdure[greenlets]', or leave bodies out, and they have threads"
        ) from None
    return Bodies(GreenletExecution)
