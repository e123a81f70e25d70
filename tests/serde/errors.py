"""Exceptions of every kind that users write, at module level so that they can be found by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

CALLED: list[str] = []


class Simple(Exception):
    pass


class TwoArguments(Exception):
    """Makes its message from its arguments."""

    def __init__(self, order: str, cents: int) -> None:
        CALLED.append("TwoArguments")
        super().__init__(f"order {order} costs {cents}")
        self.order = order
        self.cents = cents


class NoSuper(Exception):
    """Never calls super().__init__: its args are what it was called with."""

    def __init__(self, order: str, cents: int) -> None:
        CALLED.append("NoSuper")
        self.order = order


class KeywordOnly(Exception):
    def __init__(self, *, code: int, reason: str = "none") -> None:
        CALLED.append("KeywordOnly")
        super().__init__()
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"[{self.code}] {self.reason}"


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class WithProperty(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self._status = status

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, value: int) -> None:
        CALLED.append("setter")
        self._status = value


class Outer:
    class Inner(ValueError):
        pass


class Both(KeyError, TwoArguments):
    """Of several."""

    def __init__(self, key: str) -> None:
        KeyError.__init__(self, key)
        self.key = key


class OwnOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "missing", path)
        self.extra = path.upper()


class OwnNew(Exception):
    def __new__(cls, *_: Any) -> Self:
        CALLED.append("OwnNew.__new__")
        return super().__new__(cls, "made")


class OwnGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> OwnGroup:
        return OwnGroup(self.message, excs)


@dataclass
class Decorated(Exception):
    code: int
    detail: str = ""


class HoldsClient(Exception):
    """Holds what cannot be stored, and does not need it to speak."""

    def __init__(self, message: str, client: object) -> None:
        super().__init__(message)
        self.client = client
        self.region = "eu"


class NeedsClient(Exception):
    """Cannot speak without what cannot be stored."""

    def __init__(self, client: Any) -> None:
        super().__init__("failed")
        self.client = client

    def __str__(self) -> str:
        return f"failed at {self.client.host}"


class Client:
    host = "example.org"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class SecondFace(Exception):
    """Shows more after its own constructor than its args say."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.details = {"at": (1, 2)}


def local() -> Exception:
    class Local(Exception):
        pass

    return Local("here")
