"""The command line.

`main` parses a command and reports invalid input in one line, `options` holds the options of each command,
`config_file` reads those that a file holds, `commands` does the work through the packages below, and `tracebacks` finds
the line of a user's own code in an error.
"""
