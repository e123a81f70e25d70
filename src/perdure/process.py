"""Processes: durable state machines. ``perdure.sync.process`` has the same names for blocking code.

>>> from perdure.process import Process, State
>>> class Vacation(Process):
...     author: str
...     draft = State(initial=True)
...     gone = State(final=True)
...     submit = draft.to(gone, by="author")
"""

from perdure.api.process import (
    Command,
    HistoryState,
    Order,
    Parameter,
    Process,
    ProcessHandle,
    ProcessStarter,
    ProcessStatus,
    ProcessStep,
    State,
    Temporary,
    Transition,
    counted,
    mermaid,
    read,
    svg,
)

__all__ = [
    "Command",
    "HistoryState",
    "Order",
    "Parameter",
    "Process",
    "ProcessHandle",
    "ProcessStarter",
    "ProcessStatus",
    "ProcessStep",
    "State",
    "Temporary",
    "Transition",
    "counted",
    "mermaid",
    "read",
    "svg",
]
