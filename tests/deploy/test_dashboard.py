"""The dashboard and the alerts: PromQL throughout, of metrics that `/metrics` really has."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import MatchOp

from tests.proxy import DOUBT, ask, proxy, script
from tests.test_repository import ROOT

DEPLOY = ROOT / "deploy"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "honestproxy.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]
SHOWN = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [target["expr"] for _, target in SHOWN] + [rule["expr"] for rule in RULES]

OF_PROMETHEUS = {"job", "instance"}
"""Labels that every sample gets as it is scraped."""

Known = dict[str, dict[str, set[str]]]
"""By sample: its labels, and the values that each has had."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """What a proxy tells that has answered, streamed, relayed and refused, with all switched on."""
    text = asyncio.run(_told(f"sqlite:///{tmp_path_factory.mktemp('store') / 'traces.db'}"))
    found: Known = {"up": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for name, value in sample.labels.items():
                labels[name].add(value)
    return found


async def _told(store: str) -> str:
    stores: dict[str, Any] = {"trace_store": store, "answer_cache": "memory"}
    stores["upstreams"] = {"spare": {"url": "http://127.0.0.1:9/v1"}}
    async with proxy(script(confusion=DOUBT), **stores) as running:
        await running.post(ask())
        await running.post(b"{")
        streamed = {"json": ask("Streamed?", stream=True)}
        async with running.session.post(f"{running.url}/chat/completions", **streamed) as got:
            await got.read()
        async with running.session.post(f"{running.url}/other", json=ask()) as got:
            await got.read()
        async with running.session.get(running.url.removesuffix("v1") + "metrics") as got:
            return await got.text()


def parsed(expression: str) -> promql_parser.Expr:
    """An expression, Grafana's own variable filled in. Raises ValueError where it is none."""
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def nodes(expression: str) -> list[promql_parser.Expr]:
    """All parts of an expression."""
    found: list[promql_parser.Expr] = []
    promql_parser.walk(parsed(expression), found.append)
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[Any]]]:
    """The samples that an expression names, with their matchers."""
    for node in nodes(expression):
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, node.matchers.matchers


def test_every_metric_and_label_that_is_named_is_told(known: Known) -> None:
    for expression in EXPRESSIONS:
        named = list(selectors(expression))
        assert named, expression
        for name, matchers in named:
            assert name in known, f"/metrics has no {name}"
            labels = {matcher.name for matcher in matchers}
            assert labels <= known[name].keys() | OF_PROMETHEUS, expression


def test_a_value_that_is_asked_for_occurs(known: Known) -> None:
    seldom = {("outcome", "draft_fallback"), ("strategy", "raw"), ("result", "refused")}
    for expression in EXPRESSIONS:
        for name, matchers in selectors(expression):
            for matcher in matchers:
                exact = matcher.op in (MatchOp.Equal, MatchOp.NotEqual)
                if exact and matcher.name not in OF_PROMETHEUS:
                    occurs = known[name][matcher.name]
                    is_known = (matcher.name, matcher.value) in seldom
                    assert is_known or matcher.value in occurs, expression


def test_what_is_grouped_by_is_a_label(known: Known) -> None:
    for expression in EXPRESSIONS:
        labels = {label for name, _ in selectors(expression) for label in known[name]}
        for node in nodes(expression):
            if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
                assert set(node.modifier.labels) <= labels | OF_PROMETHEUS, expression


def test_a_legend_names_labels_that_are_left() -> None:
    for title, target in SHOWN:
        shown = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
        grouped = [n for n in nodes(target["expr"]) if isinstance(n, promql_parser.AggregateExpr)]
        left = OF_PROMETHEUS
        if grouped:  # the first is the outermost
            left = set(grouped[0].modifier.labels) if grouped[0].modifier else set()
        assert shown <= left, title


def test_every_figure_is_of_the_job_and_the_instances_that_were_chosen() -> None:
    for title, target in SHOWN:
        for _, matchers in selectors(target["expr"]):
            chosen = {(matcher.name, matcher.value) for matcher in matchers}
            assert {("job", "$job"), ("instance", "$instance")} <= chosen, title


def test_the_data_source_is_whatever_is_chosen() -> None:
    variables = {told["name"]: told for told in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = [told["datasource"] for told in (*PANELS, *(target for _, target in SHOWN))]
    sources += [told["datasource"] for told in variables.values() if told["type"] == "query"]
    assert {source["uid"] for source in sources} == {"${datasource}"}


def test_panels_have_ids_of_their_own_and_a_place_each() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        columns, lines = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = {(x, y) for x in columns for y in lines}
        assert max(columns) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_of_ours_is_on_the_dashboard(known: Known) -> None:
    shown = {name for _, target in SHOWN for name, _ in selectors(target["expr"])}
    ours = {name for name in known if name.startswith("honestproxy_")}
    assert {name for name in ours if not name.endswith(("_sum", "_count"))} <= shown


def test_an_alert_says_what_is_wrong_and_how_grave_it_is() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_scrape_reads_the_alerts_that_are_there() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert [DEPLOY / "prometheus" / name for name in config["rule_files"]] == [ALERTS]
    assert config["scrape_configs"][0]["job_name"] == "honestproxy"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool isn't here")
@pytest.mark.parametrize("kind", ["rules", "config"])
def test_prometheus_own_tool_finds_nothing_wrong(kind: str) -> None:
    file: Path = {"rules": ALERTS, "config": DEPLOY / "prometheus" / "prometheus.yml"}[kind]
    done = subprocess.run(["promtool", "check", kind, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
