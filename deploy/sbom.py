"""What is shipped as a CycloneDX bill of materials, with licences and who needs whom; validated.

    python deploy/sbom.py PYTHON REQUIREMENTS OUT

PYTHON is that of an environment where all of it is installed, REQUIREMENTS names what is shipped:
whatever else is installed there, such as our tools for tests, is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def canonical(name: str) -> str:
    """A package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_environment(python: str) -> dict[str, Any]:
    """Everything that is installed there, as cyclonedx-py sees it."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    command += ["--sv", "1.6", "--of", "JSON", "--output-reproducible", "-o", "-", python]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def only(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The bill with the components of these names alone. Raises ValueError where one is missing."""
    kept = [part for part in bill["components"] if canonical(part["name"]) in names]
    if missing := names - {canonical(part["name"]) for part in kept}:
        raise ValueError(f"not in the bill: {', '.join(sorted(missing))}")
    root = bill["metadata"]["component"]["bom-ref"]
    refs = {part["bom-ref"] for part in kept} | {root}
    needs = [
        {**row, "dependsOn": [ref for ref in row.get("dependsOn", []) if ref in refs]}
        for row in bill["dependencies"]
        if row["ref"] in refs
    ]
    return {**bill, "components": kept, "dependencies": needs}


def main(python: str, requirements: str, out: str) -> int:
    """Write the bill, if it is valid."""
    lines = Path(requirements).read_text("utf-8").splitlines()
    bill = only(of_environment(python), {canonical(line.partition("==")[0]) for line in lines})
    text = json.dumps(bill, indent=2)
    if mistake := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"not valid CycloneDX: {mistake}", file=sys.stderr)
        return 1
    Path(out).write_text(text + "\n", "utf-8")
    print(f"{out}: {len(bill['components'])} components, valid CycloneDX 1.6")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
