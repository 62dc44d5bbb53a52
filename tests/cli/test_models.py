import json

import pytest


def test_models_tells_whether_the_embedded_one_is_there(cli, home):
    (row,) = [r for r in rows(cli) if r["id"] == "smollm2-135m-instruct"]
    assert (row["state"], row["path"]) == ("not fetched", None)
    assert "not fetched" in cli("models").stdout


def test_models_lists_an_upstreams_own_with_their_variants(cli):
    names = [r["id"] for r in rows(cli, "--upstream", "played:gold") if r["state"] == "served"]
    assert names[0] == "gold-1"
    assert {"gold-1@raw", "gold-1@gated", "gold-1@curiosity"} <= set(names)


def test_variants_keep_to_the_settings(cli):
    words = ("--upstream", "played:gold", "--strategies-allowed", "raw")
    assert [r["id"] for r in rows(cli, *words) if r["state"] == "served"] == [
        "gold-1",
        "gold-1@raw",
    ]
    words = ("--upstream", "played:gold", "--variants", "false")
    assert [r["id"] for r in rows(cli, *words) if r["state"] == "served"] == ["gold-1"]


def test_no_variant_is_listed_that_the_upstream_cant_have(cli):
    assert not [r for r in rows(cli, "--upstream", "played:gold") if "@introspect" in r["id"]]


def test_each_model_is_listed_with_the_upstream_that_answers_for_it(cli, home):
    (home / "honestproxy.toml").write_text(
        'upstream = "played:gold"\nvariants = false\n'
        '[upstreams.house]\nurl = "played:echo"\nmodels = ["echo-*"]\n',
        "utf-8",
    )
    found = {r["id"]: r["upstream"] for r in rows(cli) if r["state"] == "served"}
    assert found == {"gold-1": "played:gold", "echo-1": "played:echo"}


def test_models_lists_what_other_tools_left_in_the_hub_cache(cli, home, monkeypatch):
    snapshot = home / "hub" / "models--org--a-model" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", "utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    (row,) = [r for r in rows(cli) if r["state"] == "in the hub cache"]
    assert (row["id"], row["upstream"]) == ("org/a-model", "local:org/a-model")


def test_an_upstream_that_is_not_there_has_failed(cli):
    done = cli("models", "--upstream", "http://127.0.0.1:9/v1")
    assert (done.exit_code, done.stdout) == (1, "")


def test_only_the_embedded_model_can_be_pulled(cli):
    done = cli("models", "pull", "org/other")
    assert done.exit_code == 2
    assert "--upstream local:ORGANISATION/NAME" in done.stderr


@pytest.mark.parametrize("words", [["models", "pull"], ["serve", "--port", "0"], ["ask", "hi"]])
def test_without_a_network_the_first_fetch_says_what_to_do(cli, monkeypatch, words):
    for name in ("PIP_INDEX_URL", "PIP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    done = cli(*words)
    assert done.exit_code == 2
    assert "honestproxy models pull" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.model
def test_pull_is_done_once(cli, monkeypatch):
    monkeypatch.delenv("HONESTPROXY_CACHE")
    first = json.loads(cli("models", "pull", "--json").stdout)
    assert (first["id"], first["state"]) == ("smollm2-135m-instruct", "ready")
    assert first["bytes"] > 90_000_000


def rows(cli, *words):
    return json.loads(cli("models", "--json", *words).stdout)["models"]
