"""The manifests: valid for every Kubernetes that is in use, locked down, and agreed with us."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from honestproxy.server.access import keys
from honestproxy.settings import load
from tests.deploy.manifests import KUBERNETES, OVERLAYS, manifests, one, with_secrets_here

VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
SECRET = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text("utf-8"))


@pytest.fixture(params=OVERLAYS)
def made(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return manifests(KUBERNETES / request.param)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid_strictly_in_every_version(overlay: str) -> None:
    for version in VERSIONS:
        for it in [*manifests(KUBERNETES / overlay), SECRET]:
            kubernetes_validate.validate(it, version, strict=True)


def test_a_mistake_would_be_found() -> None:
    broken = one(manifests(KUBERNETES / "base"), "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPorts"] = 8400
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl: our own loader alone")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_of_them_what_we_have_checked(overlay: str, tmp_path: Path) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    nobody = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # no cluster is asked
    done = subprocess.run(command, capture_output=True, text=True, env=nobody, timeout=60)
    assert done.returncode == 0, done.stderr
    by_name = {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(done.stdout)}
    ours = manifests(KUBERNETES / overlay)
    assert by_name == {(it["kind"], it["metadata"]["name"]): it for it in ours}


def test_pods_are_locked_down(made: list[dict[str, Any]]) -> None:
    for it in made:
        if it["kind"] != "Deployment":
            continue
        pod = it["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert ":" in container["image"].rpartition("/")[2], "an image without a tag"


def test_the_proxy_runs_as_nobody_on_a_root_that_it_cannot_write(made: list) -> None:
    pod = one(made, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_service_puts_its_address_where_our_settings_are_read(made: list) -> None:
    pod = one(made, "Deployment")["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False


def test_a_pod_that_ends_has_the_time_of_its_answers(made: list, tmp_path: Path) -> None:
    pod = one(made, "Deployment")["spec"]["template"]["spec"]
    before = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    settings = load(_settings(made, tmp_path)[0], environ={})
    assert before + settings.shutdown_timeout + 5 <= pod["terminationGracePeriodSeconds"]


def test_what_points_at_the_proxy_finds_it(made: list) -> None:
    deployment = one(made, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert one(made, "Service")["spec"]["selector"].items() <= labels.items()
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert one(made, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    for it in made:
        if it["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = it["spec"]
            selector = spec.get("selector") or spec["podSelector"]
            assert selector["matchLabels"].items() <= labels.items()
        if it["kind"] == "HorizontalPodAutoscaler":
            target = it["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) == ("Deployment", "honestproxy")
            assert "replicas" not in deployment["spec"], "the autoscaler's number would be undone"
            assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]


def test_its_settings_are_good_and_the_secret_holds_what_they_name(
    made: list, tmp_path: Path
) -> None:
    path, used = _settings(made, tmp_path)
    settings = load(path, environ={})
    assert used <= SECRET["stringData"].keys()
    command = [Path(sys.executable).with_name("honestproxy"), "config", "check", "--config", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (port,) = one(made, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert (settings.host, settings.port) == ("0.0.0.0", port["containerPort"])
    assert settings.keys is not None, "beyond this machine nobody asks without a key"


@pytest.mark.parametrize(
    ("mode", "owner", "is_open"),
    [
        (0o440, "other", False),  # as Kubernetes mounts a secret for a pod with fsGroup
        (0o400, "other", False),
        (0o600, "own", False),
        (0o640, "own", True),
        (0o444, "other", True),
        (0o604, "own", True),
    ],
)
def test_a_mounted_secret_is_private_enough(mode: int, owner: str, is_open: bool) -> None:
    from honestproxy.settings.references import is_open as judged

    uid = os.geteuid() + (owner == "other")
    assert judged(os.stat_result((0o100000 | mode, 1, 1, 1, uid, 10001, 1, 0, 0, 0))) is is_open


def _settings(made: list, folder: Path) -> tuple[Path, set[str]]:
    """The settings of the ConfigMap, with secrets that are there."""
    contents = dict(SECRET["stringData"])
    real = folder / "real.jsonl"
    if not real.exists():
        keys.create(real, name="first-app")
    contents["keys.jsonl"] = real.read_text()
    toml = one(made, "ConfigMap")["data"]["honestproxy.toml"]
    return with_secrets_here(toml, folder, contents)
