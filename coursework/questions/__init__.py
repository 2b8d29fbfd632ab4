"""The graded questions, a module a chapter. They stay with the instructor."""
