"""The graded questions, a module a chapter. They stay with the instructor.

What a question is and how it is judged is in `divergence_notes.grading`; what a hidden test calls is in `marking`.
"""
