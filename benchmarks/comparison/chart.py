"""Bars of a result as SVG: a panel for each measure, a bar for each system.

It is drawn by hand: a library's chart brings a script and a style sheet of elsewhere, which the page of a repository
does not run, and this is forty lines. Colours are given for a light and a dark page.
"""

from collections.abc import Sequence
from html import escape

from benchmarks.comparison.report import number
from benchmarks.comparison.results import BY_KEY, Measure, Outcome, Result

SHOWN = ("one", "drain_1", "cpu_ms")
WIDTH, LABEL, VALUE = 760, 230, 90  # pixels: of all, of the names, of the numbers
BAR, GAP, HEAD, FOOT = 16, 6, 34, 20
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 13px }
.ours { fill: #2da44e } .theirs { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def draw(result: Result) -> str:
    """Returns the SVG. Systems that have no number for a measure are left out of its panel."""
    parts: list[str] = []
    top = 0
    for key in SHOWN:
        there = [(outcome, one.median) for outcome in result.systems if (one := outcome.of(key))]
        if there:
            parts += _panel(BY_KEY[key], there, top)
            top += HEAD + len(there) * (BAR + GAP) + FOOT
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _panel(measure: Measure, there: Sequence[tuple[Outcome, float]], top: int) -> list[str]:
    most = max(value for _, value in there) or 1.0
    better = "a second, more is better" if measure.more_is_better else "ms, less is better"
    parts = [f'<text class="head" x="0" y="{top + 18}">{escape(measure.long)} ({better})</text>']
    for index, (outcome, value) in enumerate(there):
        y = top + HEAD + index * (BAR + GAP)
        width = max(1.0, (WIDTH - LABEL - VALUE) * value / most)
        kind = "ours" if outcome.key.startswith("mqueue") else "theirs"
        parts.append(f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(outcome.name)}</text>')
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
        parts.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{number(value)}</text>')
    return parts
