"""What all tests share: a real Postgres, started at most once per worker, and databases made in milliseconds."""

from __future__ import annotations

import os
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests import pace
from tests.databases import Databases
from tests.effort import EFFORT, by_effort
from tests.postgres import Cluster, Server
from tests.roles import Role, a_role

# -- tests that try the same with many kinds of things: a part of each module's, by chance

EITHER = re.compile(r"\b(sqlite|postgres|threads|greenlets)\b")  # what a test is there for, one of which is enough
ALWAYS_IN_CI = {"tests/crash/test_every_write.py", "tests/faults/test_chaos.py", "tests/mutants/test_mutants.py"}
CASES = 4  # of one test: that many or more are the same with many kinds of things
DRILL = "tests/examples/test_bad_rollout.py"  # two minutes of the command line
MANY = 50  # files: who runs fewer has chosen them, and gets all that is in them


def pytest_configure(config: pytest.Config) -> None:
    """Choose before the workers are started: they collect the same."""
    if os.environ.get("TESTED_ELSEWHERE") == "macos":
        sys.modules["sitecustomize"].change_what_is_found_otherwise()
    os.environ.setdefault(
        "PERDURE_TEST_SAMPLE", os.environ.get("PERDURE_SEED") or str(random.SystemRandom().randrange(10**9))
    )
    if config.args_source is not pytest.Config.ArgsSource.ARGS and not hasattr(config, "workerinput"):
        pace.measure()  # a run of everything


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if EFFORT not in {"some", "ci"} or len({item.nodeid.partition("::")[0] for item in items}) < MANY:
        return
    left = not_sampled(items) | not_this_time(items) | one_of_both(items)
    left |= more_of_the_same([item for item in items if item not in left])
    left |= pace.beyond(
        [item for item in items if item not in left and not promised(item)], os.environ["PERDURE_TEST_SAMPLE"]
    )
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]


def not_sampled(items: list[pytest.Item]) -> set[pytest.Item]:
    """What is left out of the tests that try the same with many kinds of things."""
    marked: dict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if (mark := item.get_closest_marker("sampled")) is not None:
            marked[item.nodeid.partition("::")[0], mark.args[0]].append(item)
    left: set[pytest.Item] = set()
    for (module, count), some in sorted(marked.items(), key=lambda one: one[0]):
        if len(some) > count and len(some) == sum(1 for item in items if item.nodeid.startswith(f"{module}::")):
            chance = random.Random(f"{os.environ['PERDURE_TEST_SAMPLE']} {module}")
            left.update(chance.sample(some, len(some) - count))
    return left


def not_this_time(items: list[pytest.Item]) -> set[pytest.Item]:
    """Of the tests that kill, wait and simulate for long: eleven of twelve.

    Never in CI of those that promise a number: of crash points, of mutants, of faults. And of the drill, which has
    a command of its own, all where five minutes are all, and in CI all but one.
    """
    long = [
        item
        for item in items
        if (item.get_closest_marker("slow") or item.get_closest_marker("crash")) and not promised(item)
    ]
    chance = random.Random(f"{os.environ['PERDURE_TEST_SAMPLE']} long")
    left = set(chance.sample(long, len(long) * 11 // 12))
    drill = [item for item in long if item.nodeid.startswith(DRILL) and item not in left]
    return left | set(drill[by_effort(0, 1, len(drill)) :])


def promised(item: pytest.Item) -> bool:
    """Whether it promises a number, and CI keeps it whatever chance says."""
    return EFFORT == "ci" and item.nodeid.partition("::")[0] in ALWAYS_IN_CI


def one_of_both(items: list[pytest.Item]) -> set[pytest.Item]:
    """A test that is there for both databases runs on one, by chance; so with bodies in threads and in greenlets."""
    twins: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        name, _, parameters = item.nodeid.partition("[")
        if parameters:
            twins[name + EITHER.sub("either", parameters)].append(item)
    chance = random.Random(f"{os.environ['PERDURE_TEST_SAMPLE']} both")
    return {left for _, some in sorted(twins.items()) for left in chance.sample(some, len(some) - 1)}


def more_of_the_same(items: list[pytest.Item]) -> set[pytest.Item]:
    """A test that is there for four cases or more runs for a third of them, by chance."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    chance = random.Random(f"{os.environ['PERDURE_TEST_SAMPLE']} cases")
    many = [some for _, some in sorted(cases.items()) if len(some) >= CASES]
    return {item for some in many for item in chance.sample(some, len(some) * 2 // 3)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if EFFORT in {"some", "ci"}:
        seed = os.environ["PERDURE_TEST_SAMPLE"]
        terminalreporter.write_line(
            f"A run of everything takes a part of the tests marked `sampled` (PERDURE_TEST_SAMPLE={seed}) and of the "
            f"crash points (PERDURE_TEST_CRASHES={EFFORT}), a twelfth of the long tests, a third of the cases where "
            "there are four or more, and each test on one of the two databases, with blocking bodies in threads or in "
            "greenlets; make crashes runs all, make drill the drill."
        )
        if pace.share() < 1:
            terminalreporter.write_line(
                f"This machine is slow: {pace.share():.0%} of these, by chance, fit into the minutes that are promised "
                f"({pace.SHARE}={pace.share()}; 1 for all of them)."
            )


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    """The Postgres to test on: the one at ``PERDURE_TEST_POSTGRES``, else one of our own. Fails if there is none."""
    if url := os.environ.get("PERDURE_TEST_POSTGRES"):
        return Server(url)
    server: Server = request.getfixturevalue("_cluster")
    return server


@pytest.fixture(scope="session")
def _databases(postgres_server: Server) -> Iterator[Databases]:
    databases = Databases(postgres_server)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_server: Server, _databases: Databases) -> Iterator[str]:
    """The URL of a database without rows that no other test uses meanwhile; its schema may be there already."""
    name = _databases.take()
    yield postgres_server.url(name)
    _databases.give_back(name)


@pytest.fixture
def bare_postgres_url(postgres_server: Server, _databases: Databases) -> Iterator[str]:
    """The URL of a new database, with nothing in it."""
    name = _databases.take(bare=True)
    yield postgres_server.url(name)
    _databases.give_back(name)


@pytest.fixture
def role(postgres_server: Server, postgres_url: str) -> Iterator[Role]:
    """A role without rights, and a database that is migrated."""
    with a_role(postgres_server, postgres_url) as made:
        yield made


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """A server that the test may stop, kill, freeze and restart; up again afterwards."""
    _cluster.start()
    yield _cluster
    _cluster.thaw()
    _cluster.start()
