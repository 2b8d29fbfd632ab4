"""Results in, Axes out: every figure of the book is drawn here, in one style.

Nothing is computed and no style is set at import; `use_style` is called once by each chapter. An Axes gets no title:
the caption of the figure is its title.
"""

from divergence_notes._extras import needs

with needs("plot"):
    import matplotlib  # noqa: F401  (what all of these draw with)

from divergence_notes.plotting.kernels import (
    plot_blocks,
    plot_column,
    plot_kernel,
    plot_leakage,
    plot_prediction,
    plot_remainders,
    plot_response,
    plot_rows,
)
from divergence_notes.plotting.plane import (
    plot_alignment,
    plot_basin,
    plot_boundary,
    plot_box_images,
    plot_jumps,
    plot_moves,
    plot_path,
    plot_plane,
    plot_portrait,
    plot_portraits,
    plot_pulls,
    plot_regions,
    plot_star,
    plot_turn,
)
from divergence_notes.plotting.reports import plot_history, plot_report
from divergence_notes.plotting.runs import (
    plot_error,
    plot_learning,
    plot_rest,
    plot_samples,
    plot_seeds,
    plot_sizes,
)
from divergence_notes.plotting.style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    KERNEL_CMAP,
    PURPLE,
    SERIES,
    STATUS_STYLE,
    VALUE_CMAP,
    VERMILION,
    use_style,
)
from divergence_notes.plotting.tables import plot_diagram, plot_grid, plot_outcomes, plot_table

__all__ = [
    "AMBER",
    "BLUE",
    "GREEN",
    "GREY",
    "KERNEL_CMAP",
    "PURPLE",
    "SERIES",
    "STATUS_STYLE",
    "VALUE_CMAP",
    "VERMILION",
    "plot_alignment",
    "plot_basin",
    "plot_blocks",
    "plot_boundary",
    "plot_box_images",
    "plot_column",
    "plot_diagram",
    "plot_error",
    "plot_grid",
    "plot_history",
    "plot_jumps",
    "plot_kernel",
    "plot_leakage",
    "plot_learning",
    "plot_moves",
    "plot_outcomes",
    "plot_path",
    "plot_plane",
    "plot_portrait",
    "plot_portraits",
    "plot_prediction",
    "plot_pulls",
    "plot_regions",
    "plot_remainders",
    "plot_report",
    "plot_response",
    "plot_rest",
    "plot_rows",
    "plot_samples",
    "plot_seeds",
    "plot_sizes",
    "plot_star",
    "plot_table",
    "plot_turn",
    "use_style",
]
