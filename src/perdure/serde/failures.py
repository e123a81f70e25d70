"""Failures: exceptions to bytes and back, and what screens show of them.

Promises:

- what a workflow catches live equals what it catches after a replay, because both are the recorded copy:
  ``decode_failure(encode_failure(exc))``;
- a copy is of the original's class if that class is already imported (a row never causes an import) and the copy's
  ``str()`` is the recorded message; otherwise it is a ``StepFailed`` with type name, message and traceback;
- no ``__init__`` and no ``__new__`` of the user's is ever called: an instance is made by the nearest built-in
  ``__new__``, then gets its ``args``, its ``__dict__`` and its slots, as far as those could be encoded;
- notes, cause, context and the members of groups are kept, bounded in number, depth and size;
- ``encode_failure`` never fails on an ``Exception`` or ``asyncio.CancelledError`` and takes nothing else.
"""

from __future__ import annotations

import asyncio
import traceback as tracebacks
import types
from typing import Any, cast

import msgspec

from perdure.errors import StepFailed, Unserializable
from perdure.model.text import written_out
from perdure.serde.codec import CODED, PAYLOAD_BYTES_MAX, is_coded
from perdure.serde.names import class_name, class_of, find_class, type_text
from perdure.serde.node import Mismatch
from perdure.serde.show import show
from perdure.serde.tagged import Extension, extend, from_tree, to_tree

TRACEBACK_BYTES_MAX = 16_384
MESSAGE_MAX = 8_192
NOTES_MAX = 32
CHAIN_MAX = 8  # exceptions along __cause__ and __context__
GROUP_MAX = 256  # members of one group that are kept
ATTRIBUTE_BYTES_MAX = 65_536
_FRAMES_MAX = 60
_BYTES_MAX = PAYLOAD_BYTES_MAX // 2  # a codec may make more of it
_TRACE = "__perdure_traceback__"
_LOST_NOTE = "not stored with the error, because they cannot be encoded: "


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded failure as screens show it: nothing of the user's is imported or called to make it."""

    type_name: str
    message: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()  # attributes that could not be stored
    cause: Failure | None = None
    context: Failure | None = None
    errors: tuple[Failure, ...] = ()  # members of a group


class _Stored(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The JSON of a failure."""

    type: str  # module:Qualname
    message: str = ""
    args: list[Any] = []
    attributes: dict[str, Any] = {}
    lost: list[str] = []
    notes: list[str] = []
    traceback: str = ""
    cause: _Stored | None = None
    context: _Stored | None = None
    suppress: bool = False
    errors: list[_Stored] | None = None
    broken: bool = False  # str() of the original failed
    partial: bool = False  # members of the group are missing


class Unstored:
    """Stands in ``args`` of a recorded exception for a value that could not be stored, with its text."""

    __slots__ = ("repr", "text")

    def __init__(self, text: str, repr: str) -> None:
        self.text = text
        self.repr = repr

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.repr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unstored) and (self.text, self.repr) == (other.text, other.repr)

    def __hash__(self) -> int:
        return hash((self.text, self.repr))


class _Thrift(msgspec.Struct, frozen=True):
    """How much to keep; the next, meaner one is tried when a failure is too large to store."""

    traceback: int  # bytes of the outermost traceback
    inner: int  # bytes of the others
    attributes: int  # bytes of one attribute or argument
    message: int
    members: int


_THRIFT = (
    _Thrift(TRACEBACK_BYTES_MAX, 4_096, ATTRIBUTE_BYTES_MAX, MESSAGE_MAX, GROUP_MAX),
    _Thrift(TRACEBACK_BYTES_MAX, 0, 2_048, 2_048, GROUP_MAX),
    _Thrift(4_096, 0, 256, 512, 32),
)


def encode_failure(exc: BaseException, traceback: bool = True) -> bytes:
    """Give the JSON of an exception. ``traceback=False`` leaves the traceback's text out.

    ``TypeError`` for what is neither an ``Exception`` nor ``asyncio.CancelledError``: those are crashes, not outcomes.
    """
    if not _encodable(exc):
        raise TypeError(f"{type_text(type(exc))} ends a process, not a step; it is never recorded as a failure.")
    for thrift in _THRIFT:
        try:
            data = msgspec.json.encode(_Writer(thrift, traceback).write(exc, 0))
        except Exception:  # noqa: S112  (code of the user's in a strange place; a meaner form calls less of it)
            continue
        if len(data) <= _BYTES_MAX:
            return data
    bare = _Stored(type=class_name(type(exc)), message=_clean(_text(exc) or "", 512), broken=True)
    return msgspec.json.encode(bare)


def decode_failure(data: bytes) -> BaseException:
    """Give the recorded copy of an exception: of its own class where that can be, else ``StepFailed``.

    Decode the same bytes wherever the exception is raised, at the first execution as on replay.
    """
    return _revive(_stored(data))


def decode_for_caller(data: bytes) -> Exception:
    """The same for whoever asks from outside the workflow that failed: never a bare ``CancelledError``.

    That would end the caller's own task, and pass his ``TaskGroup`` without a word, though nobody cancelled him.
    """
    error = decode_failure(data)
    if isinstance(error, Exception):
        return error
    told = describe_failure(data)
    failed = StepFailed(told.type_name, told.message, told.traceback)
    for note in told.notes:
        failed.add_note(note)
    return failed


def describe_failure(data: bytes) -> Failure:
    """Give what screens show of a recorded exception; its class need not exist here."""
    return _describe(_stored(data))


def _stored(data: bytes) -> _Stored:
    try:
        return msgspec.json.decode(data, type=_Stored)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problem = CODED if is_coded(data) else f"the stored data is not a recorded failure: {error}"
        raise Unserializable(f"failure: {problem}.", "failure") from error


def _encodable(exc: BaseException) -> bool:
    return isinstance(exc, (Exception, asyncio.CancelledError))


class _Writer:
    """Writes one exception and what hangs on it."""

    def __init__(self, thrift: _Thrift, traceback: bool) -> None:
        self.thrift = thrift
        self.traceback = traceback
        self.above: set[int] = set()  # exceptions under way: chains may be circular
        self.spent = 0

    def write(self, exc: BaseException, depth: int) -> _Stored:
        self.above.add(id(exc))
        try:
            return self._write(exc, depth)
        finally:
            self.above.discard(id(exc))

    def _write(self, exc: BaseException, depth: int) -> _Stored:
        message = _text(exc)
        stored = _Stored(type=class_name(type(exc)), message=_clean(message or "", self.thrift.message))
        stored.broken = message is None or not _encodable(exc)
        stored.notes = _notes(exc)
        if self.traceback:
            stored.traceback = _trace(exc, self.thrift.traceback if depth == 0 else self.thrift.inner)
        known: Any = exc
        if isinstance(exc, BaseExceptionGroup):
            self._members(known, stored, depth)
        else:
            stored.args = [self._argument(arg) for arg in exc.args]
        for name, value in _state(known).items():
            tree = self._tree(value)
            if tree is _LOST:
                stored.lost.append(_clean(name, 200))
            else:
                stored.attributes[name] = tree
        self._spend(len(stored.message) + len(stored.traceback) + sum(map(len, stored.notes)))
        stored.suppress = exc.__suppress_context__
        stored.cause = self._linked(exc.__cause__, depth)
        if not exc.__suppress_context__:
            stored.context = self._linked(exc.__context__, depth)
        return stored

    def _spend(self, size: int) -> None:
        """Give up early on what will not fit: a group may hold thousands of errors."""
        self.spent += size
        if self.spent > _BYTES_MAX:
            raise _TooLarge

    def _linked(self, exc: BaseException | None, depth: int) -> _Stored | None:
        if exc is None or depth + 1 >= CHAIN_MAX or id(exc) in self.above:
            return None
        return self.write(exc, depth + 1)

    def _members(self, group: BaseExceptionGroup[BaseException], stored: _Stored, depth: int) -> None:
        kept = [exc for exc in group.exceptions if id(exc) not in self.above][: self.thrift.members]
        stored.args = [_clean(group.message, self.thrift.message)]
        if depth + 1 >= 2 * CHAIN_MAX or not kept:
            stored.broken = True
            return
        stored.errors = [self.write(exc, depth + 1) for exc in kept]
        if len(kept) < len(group.exceptions):
            # str() counts the members, so the copy says what it has, and the note what there was.
            stored.notes.append(f"{len(group.exceptions) - len(kept)} more errors of this group were not stored")
            stored.partial = True

    def _argument(self, value: Any) -> Any:
        tree = self._tree(value)
        if tree is not _LOST:
            return tree
        bound = self.thrift.attributes
        if type(value) in (str, bytes):
            value = value[:bound]
        try:
            text, shown = str(value), repr(value)
        except Exception:
            text = shown = f"<{type(value).__qualname__}>"
        return {"$unstored": [_clean(text, bound), _clean(shown, bound)]}

    def _tree(self, value: Any) -> Any:
        """The tree of a value, or ``_LOST`` if it cannot be stored or is too long."""
        bound = self.thrift.attributes
        if type(value) in (str, bytes) and len(value) > bound:
            return _LOST
        try:
            if isinstance(value, BaseException):
                if id(value) in self.above or len(self.above) >= CHAIN_MAX:
                    return _LOST
                tree: Any = {"$error": msgspec.to_builtins(self.write(value, 1))}
            else:
                tree = to_tree(value)
            size = len(msgspec.json.encode(tree))
            if size > bound:
                return _LOST
            self._spend(size)
            return tree
        except _TooLarge:
            raise
        except Exception:  # Mismatch; or properties and reprs of the user's that fail
            return _LOST


_LOST = object()


class _TooLarge(Exception):
    """This much thrift does not suffice."""


def _text(exc: BaseException) -> str | None:
    """``str(exc)``, None if that fails."""
    try:
        text = str(exc)
    except Exception:
        return None
    return str.__str__(text)


def _clean(text: str, limit: int) -> str:
    """Text that can be stored: bounded, without NUL and lone surrogates."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return written_out(text)


def _notes(exc: BaseException) -> list[str]:
    notes: Any = getattr(exc, "__notes__", None)
    if not isinstance(notes, (list, tuple)):
        return []
    return [_clean(str(note), 2_048) for note in cast("list[object]", notes)[:NOTES_MAX]]


def _trace(exc: BaseException, limit: int) -> str:
    """The traceback's text: what was recorded before (of a copy raised again), then the frames of this time."""
    before = exc.__dict__.get(_TRACE, "")
    if limit <= 0:
        return ""
    if exc.__traceback__ is None:
        return str(before)
    try:
        frames = tracebacks.StackSummary.extract(
            tracebacks.walk_tb(exc.__traceback__), limit=-min(_FRAMES_MAX, limit // 128)
        )
        lines = frames.format()
    except Exception:
        lines = []
    text = f"{before}{'' if before else 'Traceback (most recent call last):' + chr(10)}{''.join(lines)}"
    text = written_out(text)
    if len(text.encode()) <= limit:
        return text
    half = (limit - 40) // 2
    raw = text.encode()
    return f"{raw[:half].decode(errors='ignore')}\n  … (shortened) …\n{raw[-half:].decode(errors='ignore')}"


_BASES: tuple[type, ...] = (BaseException, BaseExceptionGroup, object)
_NOT_OURS = AttributeError.__dict__["obj"]  # the object that lacked the attribute: anything at all, and of no use later


def _state(exc: BaseException) -> dict[str, Any]:
    """The attributes that make the exception what it is: its slots and built-in members, then its ``__dict__``."""
    found: dict[str, Any] = {}
    for cls in type(exc).__mro__:
        if cls in _BASES:
            continue
        for name, member in cls.__dict__.items():
            if name[:2] == "__" or member is _NOT_OURS:
                continue
            if not isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                continue
            try:
                value = member.__get__(exc)
            except Exception:  # noqa: S112  (a slot that was never set)
                continue
            if value is not None:
                found.setdefault(name, value)
    return found | {name: value for name, value in exc.__dict__.items() if not (name[:2] == "__" == name[-2:])}


def _revive(stored: _Stored) -> BaseException:
    """Make the copy."""
    exc = _same_class(stored)
    if exc is None:
        exc = StepFailed(_people_name(stored.type), stored.message, stored.traceback)
        if stored.lost:
            exc.add_note(_LOST_NOTE + ", ".join(stored.lost))
    for note in stored.notes:
        BaseException.add_note(exc, note)
    if stored.traceback:
        exc.__dict__[_TRACE] = stored.traceback
    if stored.cause is not None:
        exc.__cause__ = _revive(stored.cause)
    if stored.context is not None:
        exc.__context__ = _revive(stored.context)
    exc.__suppress_context__ = stored.suppress
    return exc


def _same_class(stored: _Stored) -> BaseException | None:
    cls = find_class(stored.type)
    if cls is None or stored.broken or not issubclass(cls, (Exception, asyncio.CancelledError)):
        return None
    try:
        exc = _made(cls, stored)
        same = stored.partial or _says(str(exc), stored.message)
        repr(exc)  # what cannot be shown would break the first log line that mentions it
    except Exception:
        return None
    return exc if same else None


def _says(text: str, message: str) -> bool:
    """Whether a copy's text is the recorded one, which may have been cut short."""
    whole = _clean(text, len(text))
    return whole == message or (message.endswith("…") and whole.startswith(message[:-1]))


def _made(cls: type[BaseException], stored: _Stored) -> BaseException:
    args = tuple(from_tree(arg) for arg in stored.args)
    if stored.errors is not None:
        members = [_revive(member) for member in stored.errors]
        new = _builtin_new(cls)
        exc: BaseException = new(cls, stored.args[0], members)
    else:
        exc = _builtin_new(cls)(cls, *args)
        exc.args = args
    for name, tree in stored.attributes.items():
        value = from_tree(tree)
        member = _member(cls, name)
        if member is None:
            exc.__dict__[name] = value
            continue
        try:
            member.__set__(exc, value)
        except (AttributeError, TypeError):  # a member that follows from args and cannot be set
            continue
    return exc


def _builtin_new(cls: type[BaseException]) -> Any:
    """The nearest ``__new__`` that is not written in Python: it runs no code of the user's."""
    for base in cls.__mro__:
        new = base.__dict__.get("__new__")
        if isinstance(new, types.BuiltinFunctionType):
            return new
    return BaseException.__new__


def _member(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        member = base.__dict__.get(name)
        if isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            return member
    return None


def _people_name(stored_type: str) -> str:
    module, _, qualname = stored_type.partition(":")
    return qualname if module == "builtins" else f"{module}.{qualname}"


def _describe(stored: _Stored) -> Failure:
    return Failure(
        type_name=_people_name(stored.type),
        message=stored.message,
        traceback=stored.traceback,
        notes=tuple(stored.notes),
        lost=tuple(stored.lost),
        cause=None if stored.cause is None else _describe(stored.cause),
        context=None if stored.context is None else _describe(stored.context),
        errors=tuple(_describe(member) for member in stored.errors or ()),
    )


def _error_to(value: Any, depth: int) -> Any:
    if not _encodable(value):
        raise Mismatch(f"a {type_text(class_of(value))} is no value; store its text: {show(str(value), 80)}")
    return msgspec.to_builtins(_Writer(_THRIFT[1], traceback=False).write(value, 1))


def _error_of(tree: Any) -> Any:
    try:
        return _revive(msgspec.convert(tree, _Stored))
    except msgspec.MsgspecError as error:
        raise Mismatch(f"not a recorded failure: {error}") from None


def _unstored_to(value: Any, depth: int) -> Any:
    return [value.text, value.repr]


def _unstored_of(tree: Any) -> Any:
    return Unstored(str(tree[0]), str(tree[1]))


# Exceptions are values too: results of gather(return_exceptions=True), SQLAlchemy's error.orig.
extend(Extension(BaseException, "$error", _error_to, _error_of))
extend(Extension(Unstored, "$unstored", _unstored_to, _unstored_of))
