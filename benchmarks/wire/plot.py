"""The table of `proxy.py` as a picture: two panels of bars in one SVG, nothing else needed."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from wire.report import shown

PANELS = (
    ("rate16", "Requests/s, 16 connections", "more is better"),
    ("added_p50", "Added to a direct call, ms, p50", "less is better"),
)
NAME, PANEL, VALUE, ROW, HEAD, EDGE = 120, 230, 60, 26, 64, 16
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .note { font-size: 11px; fill: #656d76 } .value { font-size: 12px }
.ours { fill: #0969da } .peer { fill: #afb8c1 } .ground { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #8d96a0 }
  .ours { fill: #4493f8 } .peer { fill: #57606a } .ground { fill: #0d1117 }
}
"""


def drawn(found: list[dict[str, Any]], path: Path) -> None:
    """Write the picture of these rows; a direct call is what is added to, and has no bar."""
    rows = [row for row in found if row["name"] != "direct"]
    width = 2 * EDGE + NAME + len(PANELS) * (PANEL + VALUE)
    height = HEAD + ROW * len(rows) + EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(_told(rows))}">',
        f'<style>{STYLE}</style><rect class="ground" width="{width}" height="{height}" rx="6"/>',
        *(_text(EDGE, _line(i), row["name"]) for i, row in enumerate(rows)),
    ]
    for number, panel in enumerate(PANELS):
        left = EDGE + NAME + number * (PANEL + VALUE)
        parts += _panel(left, rows, *panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]), "utf-8")


def _panel(left: int, rows: list[dict[str, Any]], measure: str, title: str, note: str) -> list[str]:
    values = [row.get(measure) or 0.0 for row in rows]
    most = max(values, default=0.0) or 1.0
    parts = [_text(left, 26, title, "title"), _text(left, 44, note, "note")]
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        length = max(value, 0.0) / most * PANEL
        kind = "ours" if row["name"].startswith("ours") else "peer"
        top = HEAD + ROW * i + 5
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{length:.1f}" height="16" rx="2"/>'
        )
        parts.append(_text(left + length + 6, _line(i), shown(row.get(measure)), "value"))
    return parts


def _line(number: int) -> int:
    return HEAD + ROW * number + 18


def _text(left: float, top: float, text: str, kind: str = "name") -> str:
    return f'<text class="{kind}" x="{left:.1f}" y="{top}">{escape(text)}</text>'


def _told(rows: list[dict[str, Any]]) -> str:
    """The picture in words."""
    return "; ".join(
        f"{row['name']}: {shown(row.get('rate16'))} requests/s, "
        f"{shown(row.get('added_p50'))} ms added"
        for row in rows
    )
