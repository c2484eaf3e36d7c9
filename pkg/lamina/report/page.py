"""A report as one HTML file that needs no network: the charts' JavaScript stands in it once, for all of them."""

from __future__ import annotations

import html
import json
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from lamina.errors import StorageError
from lamina.extras import need
from lamina.report.marked import MARKED_STYLE, marked_cards
from lamina.report.section import Cards, Chapter, Gallery, Picture, Section, Table
from lamina.text import cell

# Only pictures that carry their own bytes: an address would need the network.
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=]+")

# The page forbids itself every connection; `ast` below makes Vega interpret expressions, so that no code is evaluated.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
body { margin: 0; background: #f4f4f2; color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans",
  sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 32px 40px 56px; background: white; }
h1 { font-size: 28px; margin: 0 0 4px; line-height: 1.25; }
h2, h3 { font-size: 20px; margin: 44px 0 8px; padding-top: 14px; border-top: 1px solid #ddd; }
h2.chapter { font-size: 24px; margin: 64px 0 4px; padding-top: 18px; border-top: 4px solid #222; }
h2.chapter + p.lead + section h3 { margin-top: 12px; border-top: none; padding-top: 0; }
nav { margin: 0 0 12px; }
p, figcaption { max-width: 72ch; }
p.lead { margin: 0 0 12px; color: #444; }
figure { margin: 18px 0 30px; }
figcaption { color: #444; font-size: 15px; margin-top: 8px; }
.chart { overflow-x: auto; min-height: 40px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid #999; }
td.number, th.number { text-align: right; }
.gallery { display: flex; flex-wrap: wrap; gap: 14px 12px; }
.item { width: 96px; font-size: 12.5px; line-height: 1.35; color: #333; white-space: pre-line; }
.item img { width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated; display: block;
  margin-bottom: 4px; background: #eee; }
.item.text { width: 100%; font-size: 14px; }
.problem { background: #fff4e0; border-left: 4px solid #d58b00; padding: 8px 14px; }
footer { margin-top: 44px; color: #777; font-size: 13px; }
""".strip()


def check_place(path: Path) -> None:
    """Make the folders of a page, and raise StorageError if none can be written there: before minutes go into it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refused(path, error) from error


def write_page(path: Path, *, title: str, problems: Sequence[str], chapters: Sequence[Chapter]) -> None:
    """Write the page to `path` in one step: a reader sees the old file or the whole new one."""
    figures = _Figures()
    body = "\n".join(
        _chapter(chapter, number, figures, alone=len(chapters) == 1) for number, chapter in enumerate(chapters)
    )
    warnings = "\n".join(f'<p class="problem">{html.escape(problem)}</p>' for problem in problems)
    bundle = _javascript() if figures.specs else ""
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.escape(title)}</title>
<style>
{_STYLE}
{MARKED_STYLE}
</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{_contents(chapters)}
{warnings}
<noscript><p class="problem">The charts on this page are drawn by JavaScript, which is switched off here.</p></noscript>
{body}
<footer>Written by Lamina from what the runs hold on disk.</footer>
</main>
<script type="module">
{bundle}
const specs = {_script_json(figures.specs)};
const actions = {{ export: true, source: false, compiled: false, editor: false }};
const options = {{ renderer: "svg", ast: true, actions }};
for (const [id, spec] of Object.entries(specs)) {{
  const place = document.getElementById(id);
  vegaEmbed(place, spec, options).catch((error) => {{
    console.error(error);
    place.textContent = "This chart could not be drawn: " + error.message;
  }});
}}
</script>
</body>
</html>
"""
    _replace(path, page)


def _javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed in one script, of the Vega-Lite that this altair writes for."""
    written = need("altair", extra="report").SCHEMA_VERSION.removeprefix("v").split(".")
    return need("vl_convert", extra="report").javascript_bundle(vl_version=".".join(written[:2]))


class _Figures:
    """The charts met so far, by the id of the element that each is drawn into."""

    def __init__(self) -> None:
        self.specs: dict[str, dict[str, object]] = {}

    def add(self, chart: object) -> str:
        name = f"chart-{len(self.specs) + 1}"
        self.specs[name] = json.loads(chart.to_json())  # pyright: ignore[reportAttributeAccessIssue]
        return name


def _contents(chapters: Sequence[Chapter]) -> str:
    """Return what stands below the page's title: the lead of the only chapter, or links to several."""
    if len(chapters) == 1:
        return f'<p class="lead">{html.escape(chapters[0].lead)}</p>'
    links = (f'<li><a href="#part-{k}">{html.escape(chapter.title)}</a></li>' for k, chapter in enumerate(chapters))
    return f"<nav>Runs of {len(chapters)} kinds, told apart by their sites:\n<ul>{''.join(links)}</ul></nav>"


def _chapter(chapter: Chapter, number: int, figures: _Figures, *, alone: bool) -> str:
    level = "h2" if alone else "h3"
    sections = "\n".join(_section(section, level, figures) for section in chapter.sections)
    if alone:
        return sections
    head = f'<h2 class="chapter" id="part-{number}">{html.escape(chapter.title)}</h2>'
    return f'{head}\n<p class="lead">{html.escape(chapter.lead)}</p>\n{sections}'


def _section(section: Section, level: str, figures: _Figures) -> str:
    parts = "\n".join(_part(part, figures) for part in section.parts)
    return f"<section>\n<{level}>{html.escape(section.title)}</{level}>\n{parts}\n</section>"


def _part(part: Picture | Table | Gallery | Cards, figures: _Figures) -> str:
    if isinstance(part, Picture):
        inner = f'<div class="chart" id="{figures.add(part.chart)}"></div>'
    elif isinstance(part, Table):
        inner = _table(part)
    elif isinstance(part, Cards):
        inner = marked_cards(part)
    else:
        inner = _gallery(part)
    reading = f"<figcaption>{html.escape(part.reading)}</figcaption>"
    # what fills pages is introduced, not explained behind
    both = (reading, inner) if isinstance(part, Cards) else (inner, reading)
    return "<figure>\n{}\n{}\n</figure>".format(*both)


def _table(table: Table) -> str:
    numbers = [_is_number(column) for column in table.frame.iter_columns()]
    kinds = [' class="number"' if number else "" for number in numbers]
    names = zip(kinds, table.frame.columns, strict=True)
    head = "".join(f"<th{kind}>{html.escape(name)}</th>" for kind, name in names)
    rows = [
        "<tr>"
        + "".join(f"<td{kind}>{html.escape(cell(value))}</td>" for kind, value in zip(kinds, row, strict=True))
        + "</tr>"
        for row in table.frame.iter_rows()
    ]
    body = "\n".join(rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _is_number(column: pl.Series) -> bool:
    """Whether a column is set to the right: numbers, and texts that begin with one, such as `7.9 MB`."""
    text = column.dtype == pl.String
    return bool(column.str.contains(r"^\d").all()) if text else column.dtype.is_numeric()


def _gallery(gallery: Gallery) -> str:
    items = []
    for item in gallery.items:
        caption = html.escape(item.caption)
        if item.image is not None and _IMAGE.fullmatch(item.image):
            items.append(f'<div class="item"><img src="{item.image}" alt="{caption}">{caption}</div>')
        elif item.text is not None:
            items.append(f'<div class="item text">{html.escape(item.text)}<br>{caption}</div>')
        else:
            items.append(f'<div class="item">{caption}</div>')
    return '<div class="gallery">\n' + "\n".join(items) + "\n</div>"


def _script_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _refused(path, error) from error
        raise


def _refused(path: Path, error: OSError) -> StorageError:
    hint = "give another path: `lamina report RUN -o FILE`, `report(runs, path)`"
    return StorageError(f"the report cannot be written: {error.strerror or error}", str(path), hint=hint)
