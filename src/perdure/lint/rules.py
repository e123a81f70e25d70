"""The rules: which calls a body must not make itself, by the full name of what is called, and what to write instead.

A name is matched whole, or by its longest prefix that ends at a dot: ``random`` stands for all that the module holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Why something does not belong into a body."""

    name: str
    why: str
    fix: str


CLOCK = Rule("clock", "reads the clock, which has moved on at a replay", "perdure.now()")
SLEEP = Rule("sleep", "waits in this process only, and holds its thread", "perdure.sleep(…): durable, survives a crash")
RANDOM = Rule(
    "random", "is another number at a replay", "perdure.random() or perdure.uuid4(), the same at every replay"
)
IO = Rule("io", "is an effect that a replay would repeat, or an answer that it would not get again", "put it in a step")
THREAD = Rule(
    "thread",
    "runs beside the workflow: nothing of it is recorded, and a step that it calls is a plain call",
    "put it in a step; run steps side by side with gather, in perdure.sync as children: start all, then ask results",
)
ORDER = Rule("order", "differs from process to process", "sort first: sorted(…)")
GLOBAL = Rule(
    "global",
    "is shared with other workflows, and is as it was left, not as it was",
    "pass it as an argument, or keep it in a step",
)
AWAIT = Rule("await", "is called and never awaited: it does not happen", "await it")
CLEANUP = Rule(
    "cleanup",
    "also runs when the workflow is put away in memory, and on the way of a crash not at all",
    "do it in a step, in AsyncExitStack or after the try: steps are refused while a body is put away",
)
SWALLOW = Rule(
    "swallow",
    "catches what ends a body that is put away or cancelled",
    "catch Exception, or raise again at the end of the handler",
)

CALLS: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
            "time.perf_counter_ns", "time.process_time", "time.localtime", "time.gmtime", "time.ctime", "time.strftime",
            "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
        ),
        CLOCK,
    ),
    "time.sleep": SLEEP,
    **dict.fromkeys(
        ("random", "secrets", "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "numpy.random"),
        RANDOM,
    ),
    **dict.fromkeys(
        (
            "open", "io.open", "input", "os", "shutil", "glob", "tempfile", "pathlib.Path.cwd", "pathlib.Path.home",
            "socket", "ssl", "select", "subprocess", "urllib.request", "http.client", "smtplib", "ftplib", "sqlite3",
            "requests", "httpx", "aiohttp", "urllib3", "psycopg", "psycopg2", "asyncpg", "sqlalchemy", "redis", "boto3",
            "openai", "anthropic", "stripe", "asyncio.open_connection", "asyncio.start_server",
            "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "getpass", "platform.node",
        ),
        IO,
    ),
    **dict.fromkeys(
        ("threading", "multiprocessing", "concurrent.futures", "asyncio.to_thread", "asyncio.run"),
        THREAD,
    ),
    **dict.fromkeys(("hash", "id"), ORDER),
}  # fmt: skip

# What the same modules hold that is harmless: it computes, and asks nobody.
HARMLESS = (
    "os.path.join", "os.path.basename", "os.path.dirname", "os.path.splitext", "os.path.split", "os.path.normpath",
    "os.fspath", "threading.local", "shutil.ignore_patterns", "sqlalchemy.select", "sqlalchemy.text", "httpx.URL",
    "random.Random",  # with a seed: see reader.py
)  # fmt: skip

METHODS: Mapping[str, Rule] = dict.fromkeys(
    ("read_text", "write_text", "read_bytes", "write_bytes", "iterdir", "rglob", "unlink", "mkdir", "rmdir", "touch"),
    IO,
)
"""Methods of whatever object: few names are so clear."""

MUTATORS = frozenset(
    {
        "append", "appendleft", "extend", "extendleft", "insert", "remove", "pop", "popleft", "clear", "update", "add",
        "discard", "setdefault", "popitem", "sort", "reverse", "rotate", "difference_update", "intersection_update",
        "symmetric_difference_update",
    }
)  # fmt: skip


def rule_of(name: str) -> Rule | None:
    """The rule that a call of this full name breaks."""
    if name in HARMLESS:
        return None
    while name:
        if name in CALLS:
            return CALLS[name]
        name = name.rpartition(".")[0]
    return None
