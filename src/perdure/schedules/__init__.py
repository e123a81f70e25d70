"""Schedules without I/O: nominal times, and what becomes of each."""
