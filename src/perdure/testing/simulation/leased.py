"""Whether each effect began under a lease: judged here, where a process reads its clock and begins in one moment."""

from __future__ import annotations

from perdure.testing.histcheck.evidence import Evidence

CLOCKS = 0.001  # as much as a lease is longer by the slowest clock of a world
CLOSE_US = 1_000


def unleased(of: Evidence, lease: float) -> str:
    """The first effect that began when the lease of who began it had run out by the database's time; "" for none.

    Who was stopped right between looking at the clock and beginning begins when it goes on: nothing can help that.
    """
    until: dict[str, list[tuple[int, int]]] = {}
    for change in of.of("incarnation"):
        if change.new is not None:
            until.setdefault(change.new["id"], []).append((change.at, change.new["lease_until"]))
    resumed = [(line["whom"], line["at"] + int(line["seconds"] * 1e6)) for line in of.faults if line["fault"] == "stop"]
    resumed += [("", line["at"]) for line in of.faults if line["fault"] == "heal"]
    for line in of.ledger:
        if line["phase"] != "begin" or line["owner"] not in until:
            continue
        latest = [lease_until for at, lease_until in until[line["owner"]] if at <= line["at"]][-1:]
        if any(0 <= line["at"] - at <= CLOSE_US for pid, at in resumed if pid in ("", str(line["pid"]))):
            continue
        if latest and line["at"] > latest[0] + lease * 1e6 * CLOCKS:
            over = (line["at"] - latest[0]) / 1e6
            return f"{line['w']} began {line['name']} at {line['path']} {over:.3f} s after the lease had run out"
    return ""
