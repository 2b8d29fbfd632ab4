"""Grading by nbgrader, with the student's code and the tests in two processes that exchange messages only.

`intake` reads what was handed in, `preprocessors` runs it by way of `sandbox`, `answers`, `cells`, `wire` and `border`,
and `reading` makes it fit to be looked at. Collecting from a class, and the table of its marks, are in `grade`.
"""
