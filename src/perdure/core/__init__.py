"""The pure core: history in, commands answered, writes out. No I/O, no clock, no event loop, no thread."""
