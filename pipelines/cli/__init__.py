"""Command line: verbs, processes, and the tools that need no run. Nothing here knows a model."""
