"""What of honestproxy.ray can be told without Ray; the rest is in tests/outside/test_cluster.py."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from honestproxy.errors import EvaluationError, HonestProxyError, UpstreamError
from honestproxy.ray.baggage import Baggage, fingerprint
from honestproxy.ray.cluster import Reserved, connected, places
from honestproxy.settings import Settings
from honestproxy.templates import Prompts


@dataclass
class Nodes:
    """What Ray says of a cluster: each node's CPUs and GPUs."""

    resources: list[dict[str, float]]

    def nodes(self) -> list[dict[str, object]]:
        dead = {"NodeID": "dead", "Alive": False, "Resources": {"CPU": 99.0}}
        alive = (
            {"NodeID": f"n{number}", "Alive": True, "Resources": one}
            for number, one in enumerate(self.resources)
        )
        return [dead, *alive]


TWO = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("reserved", "chosen"),
    [
        (Reserved(), ["n0", "n1"]),
        (Reserved(workers=1), ["n0"]),
        (Reserved(workers=5), ["n0", "n1", "n0", "n1", "n0"]),
        (Reserved(workers=6), ["n0", "n1", "n0", "n1", "n0", "n0"]),
        (Reserved(cpus=4), ["n0"]),
        (Reserved(cpus=0.5, gpus=1), ["n1"]),
        (Reserved(workers=2, gpus=1), ["n1", "n1"]),
    ],
)
def test_workers_are_spread_over_the_nodes_that_have_room(reserved, chosen):
    assert places(Nodes(TWO), reserved) == chosen


@pytest.mark.parametrize(
    ("reserved", "said"),
    [
        (Reserved(workers=7), "room for 6 workers of 1 CPU each, and 7 are wanted"),
        (Reserved(cpus=8), "room for 0 workers of 8 CPU each, and 1 are wanted"),
        (Reserved(workers=3, gpus=1), "room for 2 workers of 1 CPU and 1 GPU each"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_told_with_its_numbers(reserved, said):
    with pytest.raises(EvaluationError, match=said):
        places(Nodes(TWO), reserved)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(EvaluationError, match=r"pip install 'honestproxy\[ray\]'"),
        connected("auto"),
    ):
        pass


def test_settings_travel_with_the_folders_that_they_name(tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "gated").mkdir(parents=True)
    text = Prompts()["gated/merge"].text
    (here / "gated" / "merge.md").write_text(f"Be brief.\n{text}", "utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.jsonl").write_text("{}\n", "utf-8")
    settings = Settings(prompts=here, exemplars=tmp_path / "mine", upstream_key="sk-1")
    unpacked = Baggage.of(settings).unpacked(there)
    assert Prompts(unpacked.prompts)["gated/merge"].text.startswith("Be brief.")
    assert fingerprint(unpacked) == fingerprint(settings) != fingerprint(Settings())
    assert (unpacked.exemplars / "mine.jsonl").read_text("utf-8") == "{}\n"
    assert unpacked.upstream_key == settings.upstream_key
    assert there in unpacked.prompts.parents


def test_a_folder_that_is_not_there_is_not_made_either(tmp_path: Path):
    settings = Settings(exemplars=tmp_path / "nowhere")
    unpacked = Baggage.of(settings).unpacked(tmp_path / "there")
    assert unpacked.exemplars == tmp_path / "there" / "exemplars"
    assert not (tmp_path / "there").exists()


def test_each_machine_has_its_own_cache_unless_one_is_given(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HONESTPROXY_CACHE", "/its/own")
    assert Baggage.of(Settings()).unpacked(tmp_path).cache == Path("/its/own")
    given = Settings(cache=Path("/shared"))
    assert Baggage.of(given).unpacked(tmp_path).cache == Path("/shared")


def test_errors_go_through_pickle_whole():
    body = {"error": {"message": "slow down", "type": "rate_limit"}}
    error = UpstreamError("slow down", upstream=body, status=429, headers={"Retry-After": "3"})
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, HonestProxyError)
    assert (str(back), back.status, back.body()) == ("slow down", 429, body)
    assert back.headers == {"Retry-After": "3"}
