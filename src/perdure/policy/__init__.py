"""Policies: pure decisions about retries, rates and recovery, without I/O and without a clock."""
