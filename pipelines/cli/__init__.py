"""The command line: the list of verbs, processes, exit codes, and the verbs that need no run.

It reaches every other verb by name, so that `--help` imports none of them; nothing here knows a model.
"""
