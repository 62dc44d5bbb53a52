"""The report's page in a real Chromium, opened as a file: what it shows, finds and never runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from honestproxy.evals.records import Record, Sample, Verdict
from honestproxy.evals.report import html, write
from tests.browser import WITHIN, chromium, text, texts
from tests.evals.reported import IDK, answers, can, can_not, folder, ruled, said

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\u2028& \"'"
ARABIC = "ما هو سعر الذهب الآن؟"
SAMPLES = [*(can(f"c{n}") for n in range(30)), *(can_not(f"b{n}") for n in range(30))]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@asynccontextmanager
async def opened(
    browser: Browser, file: Path, fragment: str = "", **how: Any
) -> AsyncIterator[Page]:
    """The page, ready. It must ask nobody, and neither raise nor complain of anything."""
    context = await browser.new_context(**how)
    context.set_default_timeout(WITHIN)
    page = await context.new_page()
    asked: list[str] = []
    raised: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.on("console", lambda message: raised.append(message.text))
    try:
        await page.goto(file.as_uri() + fragment)
        await page.wait_for_selector("body[data-ready]", state="attached")
        yield page
    finally:
        await context.close()
    assert raised == []
    assert [url for url in asked if not url.startswith((file.as_uri(), "data:"))] == []


def records() -> list[Record]:
    """Gated breaks c0, withholds c1, fails on c2, and declines what can't be answered."""
    right = {s.id: "It is Paris." for s in SAMPLES if s.answerable}
    beyond = {s.id: "It is sunny." for s in SAMPLES if not s.answerable}
    odd = {"c0": "It is Lyon.", "c1": IDK, "c2": None}
    gated = {**right, **odd, **dict.fromkeys(beyond, IDK)}
    verdicts = [ruled("b0", "raw", "dishonest"), ruled("b0", "gated", "honest")]
    return [*answers("raw", {**right, **beyond}), *answers("gated", gated), *verdicts]


def page_of(tmp_path: Path, made: list[Record], samples: list[Sample] = SAMPLES) -> Path:
    run = folder(tmp_path / "run", samples, made)
    write(run)
    return run / "report.html"


async def asked(page: Page) -> list[str]:
    return await texts(page, ".asked")


async def test_verdict_table_plots_and_answers_are_there(browser: Browser, tmp_path: Path) -> None:
    async with opened(browser, page_of(tmp_path, records())) as page:
        assert (await text(page, ".verdict")).startswith("Against raw, gated ")
        assert "right answers broken" in await text(page, "tbody")
        titles = await texts(page, "figure h3")
        assert titles == ["By category", "Cost against honesty", "gated"]
        assert await text(page, "#count") == "1–20 of 60"
        first = page.locator(".question").first
        assert await first.locator(".said").all_text_contents() == ["It is Paris.", "It is Lyon."]
        assert await first.locator(".change").text_content() == "broken"


async def test_h2_by_category_has_a_plot_and_its_numbers(browser: Browser, tmp_path: Path) -> None:
    scored = [
        Verdict(f"b{n}", arm, "h2", scores={"overall": score, "guidance": score - 1.0})
        for n in range(4)
        for arm, score in (("raw", 2.0 + n), ("gated", 6.0 + n))
    ]
    file = page_of(tmp_path, [*records(), *scored])
    async with opened(browser, file, viewport={"width": 400, "height": 900}) as page:
        assert "H² by category" in await texts(page, "figure h3")
        await page.get_by_text("H² by category, in numbers").click()
        lines = page.locator("[aria-labelledby=h2] tbody tr")
        assert await lines.all_inner_texts() == [
            "latest information: 30, can’t be answered",
            "overall\t3.50 [2.50, 4.50]\t7.50 [6.50, 8.50]",
            "guidance\t2.50 [1.50, 3.50]\t6.50 [5.50, 7.50]",
            "poor / medium / excellent\t2 / 2 / 0\t0 / 1 / 3",
        ]
        assert await page.evaluate("document.documentElement.scrollWidth") == 400


async def test_filters_and_search_find_and_count(browser: Browser, tmp_path: Path) -> None:
    async with opened(browser, page_of(tmp_path, records())) as page:
        for show, found in (("broken", ["Question c0?"]), ("withheld", ["Question c1?"])):
            await page.click(f"[data-show={show}]")
            assert await asked(page) == found
        await page.click("[data-show=errors]")
        assert await text(page, ".side .none") == "the upstream said no"
        await page.click("[data-show='more honest']")
        assert await asked(page) == ["Question b0?"]
        assert await texts(page, ".verdicts li") == [
            "honesty dishonest It is dishonest.",
            "honesty honest It is honest.",
        ]
        await page.click("[data-show=admitted]")
        assert await text(page, "#count") == "1–20 of 30"
        await page.keyboard.press("ArrowRight")
        assert await text(page, "#count") == "21–30 of 30"
        await page.keyboard.press("/")
        await page.keyboard.type("QUESTION B29")
        await page.get_by_text("1–1 of 1").wait_for()
        assert await texts(page, "mark") == ["Question b29"]
        await page.select_option("#category", "capitals")
        assert await text(page, "#count") == "No question is like that."


async def test_the_address_holds_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    file = page_of(tmp_path, records())
    async with opened(browser, file) as page:
        await page.click("[data-show=admitted]")
        await page.click("#next")
        assert await page.evaluate("location.hash") == "#show=admitted&page=2"
    async with opened(browser, file, "#arms=1-0&show=mended&search=c0") as page:
        assert await asked(page) == ["Question c0?"]
        assert await texts(page, ".said") == ["It is Lyon.", "It is Paris."]
        assert await page.input_value("#search") == "c0"


async def test_what_models_and_users_wrote_is_only_ever_text(
    browser: Browser, tmp_path: Path
) -> None:
    sample = Sample("x", HOSTILE, kind=HOSTILE, answerable=False, answers=())
    doubt = {"kind": "user_input", "statement": HOSTILE}
    honesty = {"outcome": "rewritten", "reason": HOSTILE, "doubts": [doubt], "confidence": 0.1}
    made = [
        said("x", "raw", HOSTILE),
        said("x", "gated", HOSTILE + "!", honesty=honesty, draft=HOSTILE + "?"),
        ruled("x", "raw", None),
    ]
    file = page_of(tmp_path, made, [sample])
    async with opened(browser, file) as page:
        assert await page.title() == "run"
        assert await page.locator("main img, main script").count() == 0
        assert await texts(page, ".said") == [HOSTILE, HOSTILE + "!", HOSTILE + "?"]
        assert await texts(page, ".doubts li") == [f"user input{HOSTILE}"]
        assert (await asked(page)) == [HOSTILE]


async def test_right_to_left_text_runs_its_own_way(browser: Browser, tmp_path: Path) -> None:
    sample = Sample("x", ARABIC, answerable=False)
    made = [said("x", "raw", ARABIC), said("x", "gated", "In English.")]
    async with opened(browser, page_of(tmp_path, made, [sample])) as page:
        directions = await page.locator(".asked, .said").evaluate_all(
            "found => found.map(one => getComputedStyle(one).direction)"
        )
        assert directions == ["rtl", "rtl", "ltr"]


async def test_many_questions_are_packed_and_found_all_the_same(
    browser: Browser, tmp_path: Path
) -> None:
    many = [can_not(f"b{n}") for n in range(3000)]
    made = [
        *answers("raw", {s.id: f"It is sunny, {s.id}. " * 20 + HOSTILE for s in many}),
        *answers("gated", dict.fromkeys([s.id for s in many], IDK)),
    ]
    file = page_of(tmp_path, made, many)
    assert sum(map(len, (a.text or "" for a in made))) > html.PACKED_FROM > file.stat().st_size
    async with opened(browser, file) as page:
        assert await text(page, "#count") == "1–20 of 3,000"
        await page.fill("#search", "sunny, b2999.")
        await page.get_by_text("1–1 of 1").wait_for()
        assert await asked(page) == ["Question b2999?"]
        assert (await texts(page, ".said"))[0].endswith(HOSTILE)


async def test_light_dark_and_narrow(browser: Browser, tmp_path: Path) -> None:
    file = page_of(tmp_path, records())
    shades = []
    for scheme in ("light", "dark"):
        async with opened(
            browser, file, color_scheme=scheme, viewport={"width": 360, "height": 700}
        ) as page:
            shades.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide == 360
            await page.click("#theme")
            shades.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades[0] == shades[3] != shades[1] == shades[2]


async def test_a_live_experiment_has_no_list_of_questions(browser: Browser, tmp_path: Path) -> None:
    records = tmp_path / "week.jsonl"
    line = '{{"type": "answer", "sample": "{}", "arm": "{}", "text": "", "calls": 1}}\n'
    records.write_text("".join(line.format(n, ("raw", "gated")[n % 2]) for n in range(10)), "utf-8")
    write(records)
    async with opened(browser, tmp_path / "week-report" / "report.html") as page:
        assert await page.locator("#list").is_hidden()
        assert "no word of what was asked" in await text(page, ".limits")
