"""`make audit-deps`: ask for known holes in all that is installed, and never take silence for "none".

    python infra/audit.py PIP_AUDIT [--service pypi|osv] [--osv-url URL] FILE…

Each file is one environment: exact versions, as `name==1.2.3`. Ends with 0 when every version was asked for and has no
known hole, 1 when one has, 3 when the service did not answer for all of them: then nothing is known. Standard library
alone, as it runs without our environment.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOLES, UNKNOWN = 1, 3
WHAT_TO_DO = """\
Nothing is known about these. Run it where the service answers, or ask another:
    make audit-deps AUDIT_OPTIONS='--service osv'                             api.osv.dev, instead of pypi.org's own
    make audit-deps AUDIT_OPTIONS='--service osv --osv-url https://HOST/…'    a mirror of it inside your network
Without any network: take a list of what is installed along (`make sbom`: dist/sbom.json), and let a scanner with a
database of its own read it (`osv-scanner --offline-vulnerabilities`, `grype sbom:`, `trivy sbom`).
"""


def audit(pip_audit: Path, file: Path, options: Sequence[str]) -> list[dict[str, Any]]:
    """What the service says of each line of a file.

    Raises:
        OSError: it says nothing at all; the message is the last line of pip-audit's.
    """
    command = [str(pip_audit), "--requirement", str(file), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", *options], capture_output=True, text=True, check=False
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError((done.stderr.strip().splitlines() or ["no message"])[-1]) from error
    return found


def tell(file: Path, found: Sequence[dict[str, Any]]) -> int:
    """Print the holes and what could not be asked; return the exit code that this file deserves."""
    skipped = [entry for entry in found if "skip_reason" in entry]
    holes = [(entry, hole) for entry in found for hole in entry.get("vulns", ())]
    for entry, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no release yet"
        print(f"{file}: {entry['name']} {entry['version']}: {hole['id']}, mended in {mended}")
    if skipped:
        print(f"{file}: {len(skipped)} of {len(found)} were not asked: {skipped[0]['skip_reason']}", file=sys.stderr)
    if not holes and not skipped:
        print(f"{file}: {len(found)} packages, no known hole")
    return HOLES if holes else UNKNOWN if skipped or not found else 0


def main() -> int:
    """Ask for every file; what is worst decides the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pip_audit", type=Path)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi")
    parser.add_argument("--osv-url")
    given = parser.parse_args()
    options = ["--vulnerability-service", given.service, *(["--osv-url", given.osv_url] if given.osv_url else [])]
    codes = []
    for file in given.files:
        try:
            codes.append(tell(file, audit(given.pip_audit, file, options)))
        except OSError as error:
            print(f"{file}: {given.service} does not answer: {error}", file=sys.stderr)
            codes.append(UNKNOWN)
    if UNKNOWN in codes:
        sys.stderr.write(WHAT_TO_DO)
    return HOLES if HOLES in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
