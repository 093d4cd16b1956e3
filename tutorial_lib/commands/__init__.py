"""The command line: one module a command or family of commands. ``tutorial_lib.__main__`` puts them together.

Each module has a function ``register(subparsers)`` that adds its sub-parsers and sets ``run``, a function of the parsed
arguments that returns the exit status, as their default. What is slow to import, PyTorch first of all, is imported
inside ``run``, so that ``--help`` comes at once.
"""
