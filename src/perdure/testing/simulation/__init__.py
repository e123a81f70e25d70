"""The simulator: N executors over the real engine, in virtual time, on a database and a network that fail by a seed.

>>> # result = simulate(42); print(result); assert result.good
"""

from perdure.testing.simulation.sometimes import POINTS, sometimes, take_hits
from perdure.testing.simulation.world import Result, simulate

__all__ = ["POINTS", "Result", "simulate", "sometimes", "take_hits"]
