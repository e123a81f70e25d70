"""Operations on workflows by a person: the one source of what Handle, Client and command line do.

Each reads the row, decides, and writes by compare-and-set on what it has read; if somebody was quicker it looks again.
Each may be repeated: done is done, and the answer is the same.
"""
