from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from lamina.errors import StorageError
from lamina.plot import curves
from lamina.report.page import check_place, write_page
from lamina.report.section import Chapter, Gallery, Item, Picture, Section, Table

HOSTILE = "</script><script>alert(1)</script><img src=http://example.org/x.png>"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def page(path: Path, *parts: Picture | Table | Gallery, title: str = "Title", problems: tuple[str, ...] = ()) -> str:
    chapters = [Chapter("", "Lead", [Section("Section", list(parts))])]
    write_page(path, title=title, problems=problems, chapters=chapters)
    return path.read_text(encoding="utf-8")


def chart(title: str = "Loss") -> Picture:
    frame = pl.DataFrame({"run": "a", "step": [0, 1], "value": [2.0, 1.0]})
    return Picture(curves(frame, title=title, y="loss (nats)"), "How to read it.")


def specs(text: str) -> dict[str, dict]:
    found = re.search(r"^const specs = (.*);$", text, re.MULTILINE)
    assert found is not None
    return json.loads(found.group(1))


def test_nothing_in_the_page_is_fetched(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html", chart())
    body = re.sub(r"<script type=\"module\">.*</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|@import|url\(", body)
    assert "default-src 'none'" in text
    assert len(re.findall("<script", body)) == 0


def test_the_bundle_stands_in_the_page_once_for_all_charts(tmp_path: Path) -> None:
    one = page(tmp_path / "one.html", chart())
    three = page(tmp_path / "three.html", chart(), chart(), chart())
    assert len(three) - len(one) < 20_000 < len(one)
    assert list(specs(three)) == ["chart-1", "chart-2", "chart-3"]
    assert all(f'id="{name}"' in three for name in specs(three))


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    table = Table(pl.DataFrame({HOSTILE: [HOSTILE]}), HOSTILE)
    gallery = Gallery([Item(None, HOSTILE, HOSTILE), Item(HOSTILE, None, HOSTILE)], HOSTILE)
    text = page(tmp_path / "page.html", table, gallery, chart(HOSTILE), title=HOSTILE, problems=(HOSTILE,))
    assert "<script>alert" not in text
    assert "<img src=http" not in text
    assert specs(text)["chart-1"]["title"]["text"] == HOSTILE


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (PIXEL, True),
        ("http://example.org/x.png", False),
        ('data:image/png;base64,AA" onerror="x', False),
        (None, False),
    ],
)
def test_only_pictures_that_carry_their_bytes_are_shown(tmp_path: Path, image: str | None, shown: bool) -> None:
    text = page(tmp_path / "page.html", Gallery([Item(image, None, "label 3")], "Reading."))
    assert ("<img" in text) == shown
    assert "label 3" in text
    assert "onerror" not in text


def test_the_page_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "page.html"
    check_place(path)
    page(path, title="first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError, match="No space left"):
        page(path, title="second")
    assert "first" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_a_place_that_takes_no_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written: .*-o FILE") as error:
        check_place(tmp_path / "file" / "page.html")
    assert error.value.file == str(tmp_path / "file" / "page.html")


def test_tables_set_numbers_and_sizes_to_the_right(tmp_path: Path) -> None:
    text = page(
        tmp_path / "page.html", Table(pl.DataFrame({"run": ["a"], "rows": [1200], "bytes": ["3 MB"]}), "Reading.")
    )
    assert '<td>a</td><td class="number">1,200</td><td class="number">3 MB</td>' in text


def test_chapters_are_linked_from_the_top(tmp_path: Path) -> None:
    chapters = [Chapter(f"Runs <{k}>", f"Lead {k}", [Section("Section", [chart()])]) for k in range(2)]
    write_page(tmp_path / "page.html", title="Title", problems=[], chapters=chapters)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for k in range(2):
        assert f'<a href="#part-{k}">Runs &lt;{k}&gt;</a>' in text
        assert f'<h2 class="chapter" id="part-{k}">Runs &lt;{k}&gt;</h2>\n<p class="lead">Lead {k}</p>' in text
    assert text.count("<h3>Section</h3>") == 2
    assert list(specs(text)) == ["chart-1", "chart-2"]
