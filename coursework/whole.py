"""A file that is there whole or not at all, whenever whoever writes it is stopped."""


def write(place, text):
    """Write a text aside, and move it to its name."""
    part = place.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(place)
