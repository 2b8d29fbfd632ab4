"""Which instance of a question is drawn, so that what a wrong answer hopes to be spared comes up in every class.

What is drawn is in `questions`.
"""


def nth(rng):
    """Return how many instances were drawn from a generator before this one; it uses up none of its numbers."""
    (child,) = rng.spawn(1)  # a generator counts its children
    return child.bit_generator.seed_seq.spawn_key[-1]


def side(rng):
    """Return 0 or 1 for an instance: each comes up in the first two, in an order that follows from the seed alone."""
    n, bits = nth(rng), rng.bit_generator.seed_seq.entropy
    return 1 - bits % 2 if n == 1 else bits >> n & 1
