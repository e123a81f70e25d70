"""What a workflow body cannot do on its loop, and the words in which it is told so.

Promise: every public method of ``asyncio.AbstractEventLoop`` that the workflow loop does not implement raises
``NotDurable`` when it is called, also those that a later Python adds (``refuse_the_rest``).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

from perdure.errors import Evicted, NotDurable

_SOCKETS = "socket I/O"
_SERVERS = "a network server"
_CONNECTION = "a network connection"
_PROCESS = "a subprocess"
_PIPE = "a pipe"
_WATCH = "watching a file descriptor"
_SIGNAL = "a signal handler"
_RUNNING = "running, stopping or closing the loop"
_THREAD = "work in a thread or executor (asyncio.to_thread, loop.run_in_executor)"
SETTING = "a setting of the loop"


def not_durable(name: str, what: str) -> NotDurable:
    """The error for one thing that was tried."""
    if what in (_RUNNING, SETTING):
        return NotDurable(
            f"loop.{name}() was called in a workflow body ({what}). A workflow body cannot do I/O, and its loop is "
            "Perdure's own. Remove the call, or put what needs it in a step."
        )
    return NotDurable(
        f"loop.{name}() was called in a workflow body ({what}). A workflow body cannot do I/O: on replay it would "
        "happen again, with another answer. Put it in a step."
    )


def from_outside() -> NotDurable:
    """The error for who touches a body from a step, a thread or the program around it."""
    return NotDurable(
        "An object of a workflow body (an Event, Future, Queue, Lock, Condition, task or timer of asyncio) was set, "
        "woken or cancelled from outside of the body, by a step or by the program around it. No history has that: "
        "on replay nobody would wake the body. Let the step return a value and do it in the body; from elsewhere send "
        "a message (handle.send, perdure.recv), set an event (perdure.set_event) or write to a stream."
    )


def behind_the_end(name: str, error: Evicted) -> tuple[str, NotDurable]:
    """What to say of cleanup that a body left to a task or generator: the message, and the error with its line."""
    said = NotDurable(
        "a step or another call of Perdure's was made after the workflow's body had ended. It did not run. To have it "
        "run and recorded, the body ends what it began: await the task (task.cancel() first to stop it), use "
        "asyncio.TaskGroup, or close the generator (contextlib.aclosing)."
    )
    return f"cleanup of {name}, which the body left behind, was cut off", said.with_traceback(error.__traceback__)


def being_collected() -> bool:
    """Whether a coroutine is being closed here, as the collector does with those of a loop that was dropped.

    What its cleanup does is nobody's act, and an exception would only be printed.
    """
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, GeneratorExit):
        error = error.__context__
    return error is not None


def refusal(name: str, what: str) -> Any:
    """A method that raises ``NotDurable`` at the call, even where asyncio's own is a coroutine."""

    def refuse(self: object, *_: object, **__: object) -> Any:
        raise not_durable(name, what)

    refuse.__name__ = name
    refuse.__doc__ = f"Refused: {what}."
    return refuse


class RefusingLoop(asyncio.AbstractEventLoop):
    """The methods of asyncio's loop that a workflow's loop refuses, by name; ``refuse_the_rest`` adds the unknown."""

    __slots__ = ()

    run_forever: Any = refusal("run_forever", _RUNNING)
    run_until_complete: Any = refusal("run_until_complete", _RUNNING)
    stop: Any = refusal("stop", _RUNNING)
    close: Any = refusal("close", _RUNNING)
    shutdown_asyncgens: Any = refusal("shutdown_asyncgens", _RUNNING)
    shutdown_default_executor: Any = refusal("shutdown_default_executor", _RUNNING)
    run_in_executor: Any = refusal("run_in_executor", _THREAD)
    set_default_executor: Any = refusal("set_default_executor", _THREAD)
    call_soon_threadsafe: Any = refusal("call_soon_threadsafe", "a call from another thread, or a future of one")
    getaddrinfo: Any = refusal("getaddrinfo", "name resolution")
    getnameinfo: Any = refusal("getnameinfo", "name resolution")
    create_connection: Any = refusal("create_connection", _CONNECTION)
    create_unix_connection: Any = refusal("create_unix_connection", _CONNECTION)
    create_datagram_endpoint: Any = refusal("create_datagram_endpoint", _CONNECTION)
    connect_accepted_socket: Any = refusal("connect_accepted_socket", _CONNECTION)
    start_tls: Any = refusal("start_tls", _CONNECTION)
    create_server: Any = refusal("create_server", _SERVERS)
    create_unix_server: Any = refusal("create_unix_server", _SERVERS)
    sendfile: Any = refusal("sendfile", "sending a file")
    sock_sendfile: Any = refusal("sock_sendfile", "sending a file")
    connect_read_pipe: Any = refusal("connect_read_pipe", _PIPE)
    connect_write_pipe: Any = refusal("connect_write_pipe", _PIPE)
    subprocess_shell: Any = refusal("subprocess_shell", _PROCESS)
    subprocess_exec: Any = refusal("subprocess_exec", _PROCESS)
    add_reader: Any = refusal("add_reader", _WATCH)
    remove_reader: Any = refusal("remove_reader", _WATCH)
    add_writer: Any = refusal("add_writer", _WATCH)
    remove_writer: Any = refusal("remove_writer", _WATCH)
    add_signal_handler: Any = refusal("add_signal_handler", _SIGNAL)
    remove_signal_handler: Any = refusal("remove_signal_handler", _SIGNAL)
    set_exception_handler: Any = refusal("set_exception_handler", SETTING)
    default_exception_handler: Any = refusal("default_exception_handler", SETTING)
    sock_recv: Any = refusal("sock_recv", _SOCKETS)
    sock_recv_into: Any = refusal("sock_recv_into", _SOCKETS)
    sock_recvfrom: Any = refusal("sock_recvfrom", _SOCKETS)
    sock_recvfrom_into: Any = refusal("sock_recvfrom_into", _SOCKETS)
    sock_sendto: Any = refusal("sock_sendto", _SOCKETS)
    sock_sendall: Any = refusal("sock_sendall", _SOCKETS)
    sock_connect: Any = refusal("sock_connect", _SOCKETS)
    sock_accept: Any = refusal("sock_accept", _SOCKETS)


def refuse_the_rest(loop_class: Any) -> None:
    """Refuse every public method of ``AbstractEventLoop`` that ``loop_class`` inherits unchanged."""
    for name in dir(asyncio.AbstractEventLoop):
        inherited: Any = getattr(asyncio.AbstractEventLoop, name)
        if not name.startswith("_") and callable(inherited) and getattr(loop_class, name) is inherited:
            setattr(loop_class, name, refusal(name, "a service of the host's loop"))


# What asyncio says when a task meets a future, lock or queue of another loop; the last one, when a second task does.
_FOREIGN = ("attached to a different loop", "is bound to a different event loop", "await wasn't used with future")


def in_our_words(error: BaseException) -> BaseException:
    """``NotDurable`` in place of asyncio's ``RuntimeError`` about another loop's future; any other error as it is.

    Of a group the one that says what to do: clients of HTTP connect in a task group, and its own text says nothing.
    Called once, for the error that a body ended with: a check where asyncio raises it would tax every turn.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for inner in group.exceptions:
            translated = in_our_words(inner)
            if isinstance(translated, NotDurable):
                return translated
        return group
    if type(error) is not RuntimeError or not any(words in str(error) for words in _FOREIGN):
        return error
    translated = NotDurable(
        f"A workflow body awaited something that belongs to another event loop ({error}). A future, lock or queue of "
        "the host program or of another workflow has no history to replay. Await it in a step, or use a message."
    )
    translated.__cause__ = error
    return translated
