"""Policies: pure decisions about retries (and, beside it, recovery), without I/O and without a clock."""
