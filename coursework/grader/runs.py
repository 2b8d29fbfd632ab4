"""What a student reads off a run: which of the numbers that it shows was typed in."""

from divergence_notes.grading.comparison import numbers_of


def nearest(value, known, *, within, otherwise):
    """Return what a number stands for: the nearest of those that a run shows.

    Parameters
    ----------
    value : float
        What was typed in.
    known : list of (str or None, float)
        Names of mistakes with the numbers to which they lead; None stands with the right one.
    within : float
        How far the nearest may be.
    otherwise : str
        What is returned where it is farther.

    Returns
    -------
    str or None
        A name from ``known``, or ``otherwise``.

    Raises
    ------
    Fault
        If it is no number, or a text.
    """
    value = float(numbers_of(value, ()))
    said, number = min(known, key=lambda pair: abs(pair[1] - value))
    return said if abs(number - value) <= within else otherwise
