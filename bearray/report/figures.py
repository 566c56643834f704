"""How figures look and how they are saved: readable without colour, the same bytes for the same numbers.

A figure is a list of panels. On disk the panels stand side by side in one PNG and one SVG; in the page each
panel is its own inline SVG, so that a narrow screen stacks them instead of shrinking their text. Every
series has its own line style, marker and hatch besides its colour, and its name is written beside it.
"""

from __future__ import annotations

import io
import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from bearray.plain import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, MUTED, GRID = "#1c2024", "#60656b", "#d9dce0"
COLOURS = ("#0b62a8", "#b54708", "#18774c", "#8a3ffc", "#a3195b", "#4d5358", "#0f7b83", "#7a5c00")
"""One a series; each has at least 4.5:1 against white."""
DARK_COLOURS = ("#6cb6ff", "#ff9f5a", "#5fd39a", "#c3a6ff", "#ff8cc0", "#b6bcc2", "#59cbd3", "#e0bf4f")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3, 1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
PANEL = (4.5, 3.2)
"""Width and height of a panel with at most `ROOM` series, in inches."""
ROOM = 8
"""Series that a panel of the usual height has room to name."""

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "bearray",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.8,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A named figure; `alt` says in words what its panels show, numbers included."""

    name: str
    """File name without suffix; unique in a report."""
    caption: str
    alt: str
    panels: tuple[Callable[[Axes], None], ...]
    series: int = ROOM
    """How many names stand one above the other; panels of more than `ROOM` are higher."""


def colour_of(i: int) -> str:
    """The colour of the i-th series."""
    return COLOURS[i % len(COLOURS)]


def line_of(i: int) -> Any:
    """Its line style; where colours come round again, the style is another one."""
    return LINES[(i + i // len(COLOURS)) % len(LINES)]


def marker_of(i: int) -> str:
    """Its marker, in the same way."""
    return MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign starts no formula, a line break breaks no layout."""
    return printable(text).replace("$", r"\$")


def short(text: str, width: int = 22) -> str:
    """`plain`, cut to a width, in letters of common width, that fits beside a line."""
    flat = printable(text)
    ends = list(accumulate(1.6 if c in "MW@%" else 2 if east_asian_width(c) in "WF" else 1 for c in flat))
    if not ends or ends[-1] <= width:
        return plain(flat)
    return plain(flat[: bisect_right(ends, width - 1)] + "…")


@contextmanager
def _style() -> Iterator[Any]:
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, **_STYLE}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it draws a box, which is all that can be done
        yield matplotlib


def save(figure: Figure, folder: Path) -> None:
    """Write NAME.png and NAME.svg into `folder`, without dates."""
    folder.mkdir(parents=True, exist_ok=True)
    with _style():
        drawn = _draw(figure.panels, figure.series)
        drawn.savefig(folder / f"{figure.name}.png", metadata={"Software": None})
        drawn.savefig(folder / f"{figure.name}.svg", metadata={"Date": None, "Creator": "bearray"})


def inline(figure: Figure) -> list[str]:
    """One SVG element a panel, for use inside HTML.

    No XML header, namespace or metadata (so no address of any kind), ids that are unique in the page, and
    colours as CSS variables with the light theme's value as fallback. Names are drawn as outlines, never as
    markup.
    """
    svgs = []
    with _style():
        for i, panel in enumerate(figure.panels):
            buffer = io.StringIO()
            drawn = _draw([panel], figure.series)
            drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
            svgs.append(_clean(buffer.getvalue(), f"{figure.name}-{i}-"))
    return svgs


def _draw(panels: Sequence[Callable[[Axes], None]], series: int) -> Canvas:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06)
    height = PANEL[1] * max(1.0, series / ROOM)
    drawn = Canvas(figsize=(PANEL[0] * len(panels), height), layout=layout)
    for i, panel in enumerate(panels, 1):
        panel(drawn.add_subplot(1, len(panels), i))
    for _ in range(2):  # the layout settles at the second drawing, once the ticks are known
        drawn.draw_without_rendering()
    drawn.set_layout_engine("none")
    return drawn


def _clean(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg).replace("url(#", f"url(#{prefix}")
    svg = re.sub(r"<svg ", '<svg aria-hidden="true" focusable="false" ', svg, count=1)
    svg = re.sub(
        r"<style[^>]*>.*?</style>", "", svg, flags=re.S
    )  # matplotlib's one rule is in the page's style
    names = {INK: "ink", MUTED: "muted", GRID: "grid", "#ffffff": "paper"}
    names |= {colour: f"series{i}" for i, colour in enumerate(COLOURS)}
    for colour, name in names.items():
        svg = svg.replace(f": {colour}", f": var(--{name}, {colour})")
    svg = re.sub(
        r'\sd="[^"]*"', lambda d: re.sub(r"(\.\d{2})\d+", r"\1", d[0]), svg
    )  # hundredths of a point do
    return re.sub(r">\s+<", "><", svg).strip()


def spread(heights: Sequence[float], ax: Axes) -> list[float]:
    """Label heights for the given values, kept inside the panel and apart, in the same order."""
    low, high = ax.get_ylim()
    gap = (high - low) * 0.075 * PANEL[1] / ax.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: dict[int, float] = {}
    floor = low
    for i in order:
        placed[i] = floor = max(min(heights[i], high), floor)
        floor += gap
    excess = max(floor - gap - high, 0.0)
    return [placed[i] - excess for i in range(len(heights))]


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each series' name beside its last point (x, y, name, colour), moved apart where they would
    collide."""
    if not ends:
        return
    heights = spread([e[1] for e in ends], ax)
    right = max(e[0] for e in ends)
    left = ax.get_xlim()[0]
    longest = max(len(e[2]) for e in ends)
    ax.set_xlim(left, right + (right - left) * min(0.06 + 0.036 * longest, 0.8))
    for (_, _, name, colour), y in zip(ends, heights, strict=True):
        ax.annotate(
            short(name),
            xy=(right, y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )


def legend_below(ax: Axes, *, columns: int = 3, gap: float = 0.2, fontsize: float = 9) -> None:
    """A legend under a panel, where it covers nothing.

    Args:
        gap: from the panel's lower edge, in heights of the panel: room for labels of the axis.
    """
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -gap),
        ncols=columns,
        frameon=False,
        fontsize=fontsize,
        labelcolor=INK,
        columnspacing=1.2,
    )


def nothing(ax: Axes, text: str) -> None:
    """An empty panel that says why it is empty."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, plain(text), ha="center", va="center", color=MUTED, wrap=True, transform=ax.transAxes)
