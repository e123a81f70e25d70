"""The history checker: reads what happened, and judges it by the numbered invariants of the engine.

It believes none of the engine's own words. Its evidence are four streams, each a file of one JSON object per line:

- the **audit**: every change of every row of the engine's tables, noted by triggers (``install_audit``);
- the **ledger**: what steps did outside, written by the steps themselves (``Ledger``);
- the **history**: what clients asked and were answered (``ClientHistory``);
- the **faults**: what was done to the system meanwhile (``FaultLog``).

>>> # evidence = Evidence(await read_audit(url), read_lines("ledger"), read_lines("history"), read_lines("faults"))
>>> # verdict = check(evidence); print(verdict); assert verdict.good
"""

from perdure.testing.histcheck import invariants as invariants  # registers them
from perdure.testing.histcheck.audit import install_audit, read_audit
from perdure.testing.histcheck.evidence import Evidence, read_lines
from perdure.testing.histcheck.judge import INVARIANTS, Verdict, Violation, check
from perdure.testing.histcheck.streams import ClientHistory, FaultLog, Ledger

__all__ = [
    "INVARIANTS", "ClientHistory", "Evidence", "FaultLog", "Ledger", "Verdict", "Violation", "check", "install_audit",
    "read_audit", "read_lines",
]  # fmt: skip
