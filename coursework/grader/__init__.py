"""Grading with nbgrader, where the student's code and the tests run in two processes that share nothing but messages."""
