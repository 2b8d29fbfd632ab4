"""What a student reads off a run: which of the numbers that it shows was typed in."""


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
    """
    said, number = min(known, key=lambda pair: abs(pair[1] - float(value)))
    return said if abs(number - float(value)) <= within else otherwise
