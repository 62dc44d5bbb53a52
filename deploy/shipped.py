"""What is shipped: every package that honestproxy with all extras brings, as installed here.

Prints it as pinned requirements. Exits 1 where a package that is required isn't installed.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def shipped(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Versions by name: a package's requirements, theirs, and so on; without the package itself."""
    found: dict[str, str] = {}
    seen, waiting = set(), [(canonicalize_name(name), extras)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        package = distribution(name)
        found[name] = Version(package.version).public  # +cpu and its like are the same release
        for line in package.requires or ():
            needed = Requirement(line)
            wanted = (needed.marker is None) or any(
                needed.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            )
            if wanted:
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found


def main() -> int:
    """Print them all."""
    try:
        found = shipped("honestproxy", frozenset({"all"}))
    except PackageNotFoundError as missing:
        print(f"not installed: {missing}; make check installs everything", file=sys.stderr)
        return 1
    del found["honestproxy"]
    for name, version in sorted(found.items()):
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
