"""The report as one HTML file, which asks nobody for anything.

What models and users wrote is data in it: the page's script shows it as text, and a policy lets
no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from string import Template
from typing import IO, Any, Final

from honestproxy.evals.report import numbers, plots
from honestproxy.evals.report.categories import h2_lines
from honestproxy.evals.report.reading import Run
from honestproxy.evals.report.rows import rows
from honestproxy.evals.report.summary import Summary
from honestproxy.evals.report.svg import colour
from honestproxy.evals.report.table import Comparison, Measure

PACKED_FROM: Final = 1_000_000
"""Bytes of questions from which they are compressed; below, the file can be read and diffed."""

DECLINES: Final = (
    "Share that it declines: of what can’t be answered, more is better; of what can, less is."
)
H2: Final = "Mean of the judge’s overall score: below 4 is poor, from 7 on excellent."

_CAN: Final = {True: "can be answered", False: "can’t be answered", None: "nobody says"}

_ESCAPES: Final = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)
"""What could end or change the element that JSON stands in."""
_PIECE: Final = 3 * 4096
"""Bytes that are written as base64 at once; a multiple of three needs no filling."""


def write(run: Run, summary: Summary, file: IO[bytes]) -> None:
    """Write the page, question by question, so that a large one takes little memory."""
    page = files(__package__) / "page"
    style, script = ((page / name).read_text("utf-8") for name in ("report.css", "report.js"))
    values = {
        "policy": escape(policy(style, script)),
        "style": style,
        "script": script,
        "title": escape(summary.name),
        "body": "\n".join(_body(summary)),
        "head": _embedded(json.dumps(_head(run, summary), ensure_ascii=False)),
    }
    whole = Template((page / "report.html").read_text("utf-8")).substitute(values)
    before, after = whole.split("<!-- questions -->")
    file.write(_encoded(before))
    _questions(rows(run), file)
    file.write(_encoded(after))


def policy(style: str, script: str) -> str:
    """What the page may do: run its own script, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"script-src {_digest(script)}",
            f"style-src {_digest(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _questions(lines: Iterable[str], file: IO[bytes]) -> None:
    """The questions as they are, or compressed where they are many."""
    waiting, size, iterator = [], 0, iter(lines)
    for line in iterator:
        waiting.append(line)
        size += len(line)
        if size > PACKED_FROM:
            file.write(b'<script type="application/json" id="questions" data-packed="deflate">')
            _pack(_chained(waiting, iterator), file)
            break
    else:
        file.write(b'<script type="application/json" id="questions">')
        file.write(_encoded("[\n" + ",\n".join(map(_embedded, waiting)) + "\n]"))
    file.write(b"</script>")


def _chained(first: list[str], rest: Iterator[str]) -> Iterator[str]:
    while first:
        yield first.pop(0)
    yield from rest


def _pack(lines: Iterator[str], file: IO[bytes]) -> None:
    """Deflate and base64, as `DecompressionStream` and `atob` undo them."""
    packer, left = zlib.compressobj(9), b""
    for number, line in enumerate(lines):
        left += packer.compress(_encoded(("," if number else "[") + line))
        whole = len(left) - len(left) % _PIECE
        file.write(base64.b64encode(left[:whole]))
        left = left[whole:]
    file.write(base64.b64encode(left + packer.compress(b"]") + packer.flush()))


def _head(run: Run, summary: Summary) -> dict[str, Any]:
    """What the list of questions needs to know of the run."""
    places = {arm: place for place, arm in enumerate(summary.arms)}
    main = next((v for v in summary.verdicts if v.sentence == summary.verdict), None)
    return {
        "arms": summary.arms,
        "pairs": [[places[before], places[after]] for before, after in run.pairs],
        "main": [places[main.before], places[main.after]] if main else [0, 0],
        "live": run.is_live,
    }


def _embedded(text: str) -> str:
    return text.translate(_ESCAPES)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _body(summary: Summary) -> Iterator[str]:
    """All that stands above the questions; names are escaped."""
    yield f'<p class="verdict">{escape(summary.verdict)}</p>'
    others = [one for one in summary.verdicts if one.sentence != summary.verdict]
    if others:
        items = "".join(f"<li>{escape(one.sentence)}</li>" for one in others)
        yield f'<ul class="others">{items}</ul>'
    yield _facts(summary)
    for kind, lines in (
        ("remarks", summary.remarks),
        ("limits", summary.limits),
        ("notes", summary.notes),
    ):
        yield "".join(f'<p class="{kind}">{escape(line)}</p>' for line in lines)
    if summary.differences:
        items = "".join(f"<li>{escape(line)}</li>" for line in summary.differences)
        yield f"<h2>What differs</h2><ul class='differs'>{items}</ul>"
    yield _table(summary)
    yield from _plots(summary)


def _facts(summary: Summary) -> str:
    facts = [f"{summary.answers:,} answers"]
    facts = [f"{summary.questions:,} questions", *facts] if summary.questions else facts
    models = dict.fromkeys(
        str(arm["model"])
        for arm in summary.config.get("arms") or []
        if isinstance(arm, dict) and arm.get("model")
    )
    judge = summary.config.get("judge")
    facts += [", ".join(models)] if models else []
    facts += [f"judge {judge.get('model')}"] if isinstance(judge, dict) else []
    return f'<p class="facts">{escape(" · ".join(facts))}</p>'


def _table(summary: Summary) -> str:
    counts = "".join(f'<th scope="col" class="n">{name}</th>' for name in ("n", "unscored"))
    head = f"<tr><td></td>{_heads(summary)}{counts}</tr>"
    lines, group = [], ""
    for row in summary.measures:
        if row.group != group:
            group = row.group
            wide = len(summary.arms) + 3
            lines.append(f'<tr class="group"><th colspan="{wide}">{escape(group)}</th></tr>')
        lines.append(_row(row, summary.arms))
    return (
        f'<h2 id="table">Measures</h2><p class="key-to">{escape(numbers.KEY)}</p>'
        '<div class="wide" tabindex="0" role="region" '
        f'aria-labelledby="table"><table><thead>{head}</thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heads(summary: Summary) -> str:
    return "".join(
        f'<th scope="col"><i class="key {colour(place)}"></i>{escape(arm)}</th>'
        for place, arm in enumerate(summary.arms)
    )


def _row(row: Measure, arms: list[str]) -> str:
    gamed = (
        f' <span class="gamed" title="{escape(", ".join(row.gamed))} does as well">gamed</span>'
        if row.gamed
        else ""
    )
    name = f'<th scope="row">{escape(row.name)}{gamed}<small>{escape(row.about)}</small></th>'
    cells = "".join(_cell(row, arm) for arm in arms)
    n, unscored = numbers.cases(row), numbers.unscored(row)
    odd = ' class="odd"' if unscored != "0" else ""
    counts = f'<td class="n">{n}</td><td class="n"><span{odd}>{unscored}</span></td>'
    return f"<tr>{name}{cells}{counts}</tr>"


def _cell(row: Measure, arm: str) -> str:
    value, *beside = _split(row, arm)
    compared = row.against(arm)
    told = f"<b>{escape(value)}</b>" + "".join(
        f'<span class="{name}">{escape(part)}</span>' for name, part in beside if part
    )
    return f'<td class="{_direction(row, compared)}">{told}</td>'


def _split(row: Measure, arm: str) -> Iterator[Any]:
    """The value; then what stands beside it, each with its class."""
    found, compared = row.values.get(arm), row.against(arm)
    yield numbers.value(found, row.unit)
    yield "between", numbers.interval(found, row) if found else ""
    if compared:
        yield "difference", numbers.difference(compared, row.unit)
        yield "p", numbers.probability(compared.corrected)


def _direction(row: Measure, compared: Comparison | None) -> str:
    """Whether a difference was shown, and which way."""
    if compared is None or not row.better:
        return ""
    if not compared.is_shown or row.key in ("calls",):
        return "unshown" if not compared.is_shown else "shown"
    up = (compared.difference.value or 0) > (1 if compared.times else 0)
    return "shown better" if up == (row.better == "more") else "shown worse"


def _plots(summary: Summary) -> Iterator[str]:
    if made := list(_overviews(summary)):
        yield f'<h2>Where, and at what price</h2><div class="plots two">{"".join(made)}</div>'
    if summary.h2_by_category:
        yield _h2(summary)
    if crossed := list(_crossed(summary)):
        yield f'<h2>What became of answers</h2><div class="plots">{"".join(crossed)}</div>'
    if curves := list(_curves(summary)):
        yield f'<h2>Its confidence</h2><div class="plots">{"".join(curves)}</div>'


def _overviews(summary: Summary) -> Iterator[str]:
    if summary.by_category:
        row = summary.measure(summary.category_measure)
        about = row.about if row and row.key == "honest" else DECLINES
        yield _figure("By category", about, plots.by_category(summary), summary.arms)
    if summary.h2_by_category.get("overall"):
        yield _figure("H² by category", H2, plots.h2_by_category(summary), summary.arms)
    if len([arm for arm in summary.honesty_by_arm if arm in summary.cost_by_arm]) > 1:
        about = f"{summary.honesty_name}, over what a question takes. Up and to the left is better."
        yield _figure("Cost against honesty", about, plots.cost_and_honesty(summary))


def _crossed(summary: Summary) -> Iterator[str]:
    before = {one.after: one.before for one in summary.verdicts}
    for arm, one in summary.matrices.items():
        if one.n:
            about = f"{one.unscored:,} unscored" if one.unscored else ""
            yield _figure(arm, about, plots.matrix(one, before[arm], arm))


def _curves(summary: Summary) -> Iterator[str]:
    places = {arm: place for place, arm in enumerate(summary.arms)}
    for arm, (own, length) in summary.calibrations.items():
        about = "How often plain answers of a confidence are good; below, how many have it."
        curve = plots.reliability(own, length, places[arm])
        yield _figure(f"{arm}: reliability", about, curve)
        about = "Wrong among those answered, if only the surest are; dashed, the shortest."
        curve = plots.risk_coverage(own, length, places[arm])
        yield _figure(f"{arm}: risk and coverage", about, curve)


def _h2(summary: Summary) -> str:
    """Scores and bands of H² in numbers, a group of lines for each category."""
    wide, lines = len(summary.arms) + 1, []
    for category, told in h2_lines(summary.h2_by_category):
        name = f"{category.name.replace('_', ' ')}: {category.n:,}, {_CAN[category.answerable]}"
        lines.append(f'<tr class="group"><th colspan="{wide}">{escape(name)}</th></tr>')
        for what, cells in told:
            shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            lines.append(f'<tr><th scope="row">{escape(what)}</th>{shown}</tr>')
    return (
        '<details><summary id="h2">H² by category, in numbers</summary>'
        '<div class="wide" tabindex="0" role="region" aria-labelledby="h2">'
        f"<table><thead><tr><td></td>{_heads(summary)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _figure(title: str, about: str, drawing: str, legend: Iterable[str] = ()) -> str:
    keys = "".join(
        f'<span><i class="key {colour(place)}"></i>{escape(arm)}</span>'
        for place, arm in enumerate(legend)
    )
    said = f"<p>{escape(about)}</p>" if about else ""
    shown = f'<p class="legend">{keys}</p>' if keys else ""
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3>{said}{shown}</figcaption>{drawing}</figure>"
    )
