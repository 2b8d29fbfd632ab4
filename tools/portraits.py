"""Draw the picture of the README and of the printed cover, the three portraits: book/_static/portraits.png."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from divergence_notes import examples, plotting

TARGET = Path(__file__).resolve().parent.parent / "book" / "_static" / "portraits.png"


def drawn():
    """Return the figure."""
    plotting.use_style()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9))
    for ax, (example, portrait) in zip(axes, examples.cover(), strict=True):
        plotting.plot_portrait(portrait, star=example.target, diagonal=example.update.mdp.n_actions > 1, ax=ax)
        ax.set_title({"the calm": "converges", "the orbit": "never settles", "the pair": "diverges"}[example.name])
    return figure


if __name__ == "__main__":
    drawn().savefig(TARGET, dpi=80, metadata={"Software": None})
