"""The command line: ``perdure …``. Prints what the rows tell, with no need of the app's code; see ``main``."""
