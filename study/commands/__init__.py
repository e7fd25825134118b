"""The commands of the command line: a file for each thing that a user is about.

Each file has an `app` of its own, which `study.__main__` joins to one. Libraries that take long to
import are imported by the command that needs them.
"""
