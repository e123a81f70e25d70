"""Changes of a workflow's code that runs begun before do not meet: the old branch for them, the new for others."""

from __future__ import annotations

from perdure.api.keys import check_name
from perdure.runtime import aface


def patched(name: str, /) -> bool:
    """Whether the change ``name`` is for the calling run. False if it had passed this point before the change came.

    The answer is the same wherever the run asks, on every replay. ``name`` is chosen once and never used again for
    another change. Raises ``OutsideWorkflow`` elsewhere.

    >>> # if patched("fraud-check"):
    >>> #     await check_fraud(order)      # runs begun since
    """
    answer: bool = aface.need_body("patched").patched(check_name(name, "patch"))
    return answer


def deprecate_patch(name: str, /) -> None:
    """Stands where ``patched(name)`` stood, once no open run needs the old branch any more.

    Histories with the record of the change replay, and histories without. It goes when no open run has that record.
    """
    aface.need_body("deprecate_patch").run.deprecate_patch(check_name(name, "patch"))
