"""Known vulnerabilities of what is shipped, each either explained in audit.toml or a failure.

    python deploy/audit.py REQUIREMENTS

Exits 0 where nothing is known that isn't explained, 1 where something is, and 3 where the service
that knows couldn't be asked: then nothing is said about any package.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

UNASKED: Final = 3
SERVICES: Final = ("pypi", "osv")
_EXPLAINED: Final = Path(__file__).with_name("audit.toml")
_FIELDS: Final = frozenset({"id", "package", "reason", "until"})


def told(requirements: str) -> list[dict[str, Any]] | None:
    """What is known of each package; None, and why on stderr, where nobody could be asked."""
    for service in SERVICES:
        found, why = _asked(service, requirements)
        if found is not None:
            return found
        print(f"{service}: {why[:300]}", file=sys.stderr)
    print("NOT AUDITED: no vulnerability service can be reached from here", file=sys.stderr)
    return None


def _asked(service: str, requirements: str) -> tuple[list[dict[str, Any]] | None, str]:
    """What one service says of each package; or None, and why."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps"]
    command += ["--vulnerability-service", service, "--disable-pip", "--timeout", "20"]
    command += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None, (done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]
    if all("skip_reason" in package for package in found):  # a mirror has packages alone
        return None, "what answers there knows none of these packages"
    return found, ""


def explained(today: datetime.date) -> list[dict[str, Any]]:
    """The findings that are let stand. Raises ValueError for an entry that is out of shape."""
    entries: list[dict[str, Any]] = tomllib.loads(_EXPLAINED.read_text("utf-8"))["finding"]
    for entry in entries:
        if entry.keys() != _FIELDS or not str(entry["reason"]).strip():
            raise ValueError(f"{_EXPLAINED.name}: an entry needs exactly {', '.join(_FIELDS)}")
    return [entry for entry in entries if entry["until"] >= today]


def problems(found: list[dict[str, Any]], known: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each finding without a reason, and each reason without a finding."""
    met = set()
    for package in found:
        if "skip_reason" in package:
            yield f"{package['name']}: not looked at: {package['skip_reason']}"
        for finding in package.get("vulns", []):
            names = {finding["id"], *finding["aliases"]}
            reasons = [k for k in known if k["package"] == package["name"] and k["id"] in names]
            met |= {reason["id"] for reason in reasons}
            if not reasons:
                mended = ", ".join(finding["fix_versions"]) or "no version yet"
                yield f"{package['name']} {package['version']}: {finding['id']}, mended in {mended}"
    for entry in known:
        if entry["id"] not in met:
            yield f"{_EXPLAINED.name}: {entry['id']} is found no more: take it out"


def main(requirements: str) -> int:
    """Print every problem, and a last line that says how it stands."""
    found = told(requirements)
    if found is None:
        return UNASKED
    known = explained(datetime.datetime.now(datetime.UTC).date())
    lines = list(problems(found, known))
    print(*lines, sep="\n", end="\n" * bool(lines))
    print(f"{len(found)} packages, {len(known)} findings explained, {len(lines)} problems")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
