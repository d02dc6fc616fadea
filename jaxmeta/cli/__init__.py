"""The command line.

`main` reads what is asked and tells a mistake in one sentence, `options` holds the options of each command,
`config_file` reads those that a file holds, `commands` does the work through the packages below, and `tracebacks` finds
the line of a user's own code in an error.
"""
