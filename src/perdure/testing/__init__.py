"""Tests of durable workflows: a fresh store, a clock of their own, crashes on order.

>>> # async with harness(shop) as h:
>>> #     handle = await checkout.start("sku", 1)
>>> #     await h.advance(timedelta(minutes=31))
>>> #     assert await handle.result() is False
"""

from perdure.testing.environment import Harness, harness

__all__ = ["Harness", "harness"]
