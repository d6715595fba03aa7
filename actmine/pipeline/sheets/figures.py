"""Figures of matplotlib in the colours and the font of sheets, for notebooks."""

from __future__ import annotations

from typing import Any

from actmine.pipeline.sheets.drawing import BAR, FAINT, GREY, INK, PALE, PAPER
from actmine.pipeline.sheets.vector import embedded


def figure_style() -> dict[str, Any]:
    """Settings of matplotlib: `plt.rcParams.update(figure_style())`. No frame, quiet axes, the colours of sheets."""
    from cycler import cycler
    from matplotlib.font_manager import FontProperties, fontManager

    file = embedded().name
    fontManager.addfont(file)
    without = {f"axes.spines.{side}": False for side in ("left", "right", "top")}
    return without | {
        "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "figure.dpi": 110,
        "figure.constrained_layout.use": True, "font.family": FontProperties(fname=file).get_name(), "font.size": 10,
        "text.color": INK, "axes.labelcolor": GREY, "axes.titlecolor": INK, "axes.titlesize": 11,
        "axes.titlelocation": "left", "axes.titlepad": 10, "xtick.color": GREY, "ytick.color": GREY,
        "axes.edgecolor": FAINT, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0,
        "ytick.minor.size": 0, "grid.color": PALE, "axes.axisbelow": True, "axes.unicode_minus": False,
        "axes.prop_cycle": cycler(color=[GREY, BAR, INK]), "legend.frameon": False,
    }  # fmt: skip
