import json
import socket

PLAYED = ("--upstream", "played:gold", "--port", "0")


def test_a_machine_in_order_exits_0(cli):
    done = cli("doctor", *PLAYED)
    assert done.exit_code == 0, done.stdout
    for name in ("Python", "packages", "settings", "prompts", "cache folder", "local models"):
        assert name in done.stdout
    assert "gold-1" in done.stdout


def test_json_lists_each_check_with_its_remedy(cli):
    found = checks(cli, *PLAYED)
    assert found["upstream"]["state"] == "ok"
    assert found["smollm2-135m-instruct"]["remedy"] == "honestproxy models pull"


def test_a_configured_upstream_that_is_down_is_broken(cli):
    done = cli("doctor", "--upstream", "http://127.0.0.1:9/v1", "--port", "0")
    assert done.exit_code == 1
    assert "✗" in done.stdout


def test_a_taken_port_is_only_worth_a_note(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = checks(cli, "--upstream", "played:gold", "--port", port)
    assert found[f"port {port}"]["state"] == "note"


def test_broken_prompts_are_told(cli, home):
    (home / "mine").mkdir()
    (home / "mine" / "stranger.md").write_text("hello", "utf-8")
    done = cli("doctor", *PLAYED, "--prompts", "mine")
    assert done.exit_code == 1
    assert "stranger.md" in done.stdout


def test_settings_name_where_they_come_from(cli, home):
    (home / "honestproxy.toml").write_text("threshold = 0.5\n", "utf-8")
    assert "honestproxy.toml, HONESTPROXY_CACHE" in checks(cli, *PLAYED)["settings"]["found"]


def checks(cli, *words):
    listed = json.loads(cli("doctor", "--json", *words).stdout)["checks"]
    return {check["name"]: check for check in listed}
