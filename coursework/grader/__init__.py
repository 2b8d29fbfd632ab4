"""Grading by nbgrader, with the student's code and the tests in two processes that exchange messages only."""
