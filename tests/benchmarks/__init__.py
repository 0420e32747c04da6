"""Benchmarks: what EditorBot does, measured against named alternatives in one run on one machine.

`python -m tests.benchmarks` runs them all; they are not part of the tests. A benchmark is a function that takes a
`Bench` and returns rows, registered with `@benchmark`; a module of benchmarks is named in `__main__.MODULES`.
Conventions: seconds are wall-clock; a ratio above 1 means EditorBot is better; numerical libraries get one thread.
"""
