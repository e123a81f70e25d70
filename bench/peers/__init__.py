"""The peers' sides of the comparison, each run by the Python of its own environment (``tools/peers.sh`` makes them).

Written from the peers' public documentation; nothing of their source is here. What each is given is what suits it best:
DBOS its sync face (its async one is slower everywhere), Absurd a short poll, Restate 200 calls in flight.
"""
