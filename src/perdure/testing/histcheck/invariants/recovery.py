"""Invariants of leases, recovery and versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.model.states import CAUSE, Cause, Status
from perdure.testing.histcheck.evidence import Evidence, Row, status_of
from perdure.testing.histcheck.invariants.workflows import QUIET_US, States
from perdure.testing.histcheck.judge import Findings, invariant

OVER = frozenset({"dead", "gone", "released"})
HARMLESS = frozenset({"drain", "heal"})  # keep nobody from renewing a lease
DONE: dict[str, Callable[[Row, Row], bool]] = {  # what a workflow's row looks like when it was done
    "hold": lambda row, _: status_of(row) is Status.HELD,
    "terminate": lambda row, _: status_of(row) is Status.TERMINATED,
    "run_from": lambda row, decision: row["run"] == decision["run"] + 1,
}
SERVING = frozenset({"alive", "draining"})


@invariant("I57")
def the_dead_hold_nothing(of: Evidence, found: Findings) -> None:
    """Once all is healed, nothing is still held by an incarnation that is gone."""
    if of.healed is None or not of.changes:
        return
    end = max([of.changes[-1].at, *(line["at"] for line in of.faults)])
    who = {key[0]: row for key, row in of.final("incarnation").items()}
    served = {row["version"] for row in who.values() if row["state"] == "alive"}
    for id, row in of.ends.items():
        if status_of(row) is not Status.RUNNING or row["version"] not in served:
            continue
        found.look()
        owner = who.get(row["owner"])
        if (owner is None or owner["state"] in OVER) and end - row["updated"] >= QUIET_US:
            found.violated(f"{id} is held by an incarnation that is gone", of.workflows[id][-1])


@invariant("I58")
def nobody_takes_from_the_living(of: Evidence, found: Findings) -> None:
    """Only the work of who left or is buried is taken over; only the killed and the late are buried; death is final."""
    states = States(of)
    for id, changes in of.workflows.items():
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None or None in (old["owner"], new["owner"]) or old["owner"] == new["owner"]:
                continue
            found.look()
            if states.at(old["owner"], change.n) in SERVING:
                found.violated(f"{id} was taken from an incarnation that serves", change)
    killed = of.struck("kill") | of.struck("exit") | of.struck("force")
    for change in of.of("incarnation"):
        old, new = change.old, change.new
        if old is None or new is None:
            continue
        found.look()
        if old["state"] in OVER and (new["state"] in SERVING or new["beats"] > old["beats"]):
            found.violated("the dead came back", change)
        buried = old["state"] in SERVING and new["state"] == "dead" and old["lease_until"] > change.at
        if buried and of.faults and not killed & {new["id"], str(new["pid"]), new["executor"]}:
            was = f"{old['state']}, with {(old['lease_until'] - change.at) / 1e6:.3f} s left"
            found.violated(f"declared dead while its lease was running ({was}), and nobody had killed it", change)
        elif old["state"] in SERVING and new["state"] == "dead" and of.faults and not _hindered(of, new, change.at):
            found.violated("declared dead, and no fault had kept it from renewing its lease", change)


def _hindered(of: Evidence, who: Row, at: int) -> bool:
    """Whether something kept an incarnation from renewing its lease: done to it, or to all."""
    names = {"", who["id"], str(who["pid"]), who["executor"]}
    return any(
        line["fault"] not in HARMLESS and line["at"] <= at and str(line.get("whom", "")) in names for line in of.faults
    )


@invariant("I58b")
def an_identity_is_one_process(of: Evidence, found: Findings) -> None:
    """An incarnation is one life of one process: all its claims bear the mark of one maker of tokens."""
    makers: dict[str, str] = {}
    for id, spans in of.claims.items():
        for claim in spans:
            found.look()
            if makers.setdefault(claim.owner, claim.token[:16]) != claim.token[:16]:
                given = [c for c in of.workflows[id] if c.n == claim.n]
                found.violated(f"two processes claim as incarnation {claim.owner[:8]}…", *given)


@invariant("I49")
def claims_are_of_one_version(of: Evidence, found: Findings) -> None:
    """A workflow is held only by an incarnation of its own version."""
    versions: dict[str, str] = {
        c.row["id"]: c.row["version"] for c in of.of("incarnation") if c.row["state"] == "alive"
    }
    for id, spans in of.claims.items():
        for claim in spans:
            row = of.row_at(id, claim.n)
            if row is None or claim.owner not in versions:
                continue
            found.look()
            if row["version"] != versions[claim.owner]:
                given = [c for c in of.workflows[id] if c.n == claim.n]
                found.violated(f"{id} of version {row['version']!r} is held by {versions[claim.owner]!r}", *given)


@invariant("I52")
def a_move_takes_the_token(of: Evidence, found: Findings) -> None:
    """When the version of held work changes, its token changes in the same commit."""
    for id, changes in of.workflows.items():
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None or old["version"] in ("", new["version"]) or old["run"] != new["run"]:
                continue
            found.look()
            if old["claim"] is not None and old["claim"] == new["claim"] and old["owner"] is not None:
                found.violated(f"{id} went to version {new['version']!r} under its old token", change)


@invariant("I59")
def decisions_are_under_the_claim(of: Evidence, found: Findings) -> None:
    """A decision about an interrupted run is one row, written under the claim that it was made under.

    What a person orders of a run that its holder keeps is noted without a cause, and is no decision.
    """
    seen: set[Any] = set()
    for change in of.of("decision"):
        row = change.row
        if change.op != "insert" or row.get("cause") == CAUSE[Cause.NONE]:
            continue
        found.look()
        now = of.row_at(row["id"], change.n)
        key = (row["id"], row["run"], row["claim"])
        earlier = of.claim_of.get((row["id"], row["claim"]))
        if key in seen or now is None or (earlier is None and now["claim"] != row["claim"]):
            found.violated(f"a decision about {row['id']} without its claim", change)
        seen.add(key)


@invariant("I59b")
def what_was_decided_was_done(of: Evidence, found: Findings) -> None:
    """What a policy said stands in the commit that does it (judged where commits have names)."""
    for change in of.of("decision"):
        row = change.new
        if row is None or not row.get("policy") or not change.tx or row["decision"] not in DONE:
            continue
        if change.old is not None and change.old["decision"] == row["decision"]:
            continue  # a repeated write, which changes nothing
        found.look()
        done = [c for c in of.workflows.get(row["id"], ()) if c.tx == change.tx and c.new is not None]
        if not any(DONE[row["decision"]](c.new, row) for c in done if c.new is not None):
            found.violated(f"{row['decision']} of {row['id']} was decided, and not done in that commit", change, *done)
