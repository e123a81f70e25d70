"""What a mode of recovery forbids: judged here, for the evidence does not tell which mode its executors had."""

from __future__ import annotations

from perdure.testing.histcheck.evidence import Evidence, Row
from perdure.testing.simulation.sometimes import sometimes


def wrong(of: Evidence, recovery: str) -> str:
    """The first takeover, or the first executor, that should not have been; "" for none."""
    sometimes(f"a world of recovery={recovery}")
    return _company(of) if recovery == "single" else _taken(of, recovery)


def _taken(of: Evidence, recovery: str) -> str:
    who: dict[str, Row] = {}
    for change in of.changes:
        old, new = change.old, change.new
        if change.table == "incarnation":
            who.pop(change.row["id"], None)
            if new is not None:
                who[new["id"]] = new
        if change.table != "workflow" or old is None or new is None:
            continue
        former, heir = who.get(old["owner"]), who.get(new["owner"])
        if former is None or heir is None or former["id"] == heir["id"]:
            continue
        released = former["state"] == "released"
        mine = former["executor"] == heir["executor"]
        sometimes("work was taken over by the order of a person", released)
        sometimes("work was taken over by whom a person named", released and former["heir"] is not None)
        sometimes("an executor took over its own work only", recovery == "own" and mine)
        told = (
            f"recovery={recovery}: {new['id']} went from {former['executor']} to {heir['executor']} (audit {change.n})"
        )
        if released and former["heir"] not in (None, heir["executor"]):
            return f"{told}, and a person had given it to {former['heir']}"
        if not released and (recovery == "manual" or (recovery == "own" and not mine)):
            return told
    return ""


def _company(of: Evidence) -> str:
    """Who takes work, while another serves that has held some before; who registers looks whether it is alone."""
    serving: dict[str, int] = {}
    holders: set[str] = set()
    lives: dict[int, str] = {}
    over = of.struck("kill") | of.struck("exit")
    for change in of.changes:
        row = change.new
        if row is None:
            continue
        if change.table == "incarnation":
            sometimes("a single one was back", lives.setdefault(row["pid"], row["id"]) != row["id"])
            if row["state"] in ("alive", "draining") and str(row["pid"]) not in over:
                serving[row["id"]] = row["lease_until"]
            else:
                serving.pop(row["id"], None)
        elif change.table == "workflow" and row["owner"] is not None and row["owner"] not in holders:
            others = [id for id in holders if serving.get(id, 0) > change.at]
            if others:
                return f"recovery=single: {row['owner']} works beside {others[0]} (audit {change.n})"
            holders.add(row["owner"])
    return ""
