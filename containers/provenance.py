"""Print what an image was built from, as a SLSA provenance statement: revision, base, locks and wheel by digest."""

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILDER = "urn:podium:containers/build.sh"


def file_descriptor(path: Path) -> dict[str, Any]:
    """Describe a file that took part by its digest."""
    return {
        "name": path.relative_to(ROOT).as_posix(),
        "digest": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }


def base_descriptor(reference: str, image_id: str) -> dict[str, Any]:
    """Describe the base image by the registry's digest where its name has one, else by the ID it has here."""
    pinned = re.search(r"@sha256:([0-9a-f]{64})$", reference)
    digest = pinned[1] if pinned else image_id.removeprefix("sha256:")
    return {
        "name": "base",
        "uri": f"docker://{reference}",
        "digest": {"sha256": digest},
        "annotations": {"digest": "manifest" if pinned else "image ID"},
    }


def source_descriptor(revision: str) -> dict[str, Any]:
    """Describe the commit; one with `-dirty` had changes that it does not hold."""
    commit = revision.removesuffix("-dirty")
    return {
        "name": "source",
        "digest": {"gitCommit": commit},
        "annotations": {"changed": commit != revision},
    }


def statement(options: argparse.Namespace) -> dict[str, Any]:
    """Return the statement about an image. It holds no time: that of one build is that of another."""
    files = [
        ROOT / "containers" / "trainer" / "Dockerfile",
        ROOT / "containers" / "trainer" / "with-index.sh",
        ROOT / "requirements" / "installer.lock",
        ROOT / "requirements" / f"{options.lock}.lock",
        *sorted((ROOT / "build" / "wheel").glob("*.whl")),
    ]
    sources = [] if options.revision == "unknown" else [source_descriptor(options.revision)]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": options.image, "digest": {"sha256": options.image_id}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILDER,
                "externalParameters": {"lock": options.lock, "base": options.base},
                "internalParameters": {"SOURCE_DATE_EPOCH": options.epoch},
                "resolvedDependencies": [
                    *sources,
                    base_descriptor(options.base, options.base_id),
                    *(file_descriptor(path) for path in files),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"engine": options.engine}}},
        },
    }


def main() -> None:
    """Print the statement that the options describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("image", "image-id", "revision", "lock", "base", "base-id", "engine"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epoch", required=True, type=int)
    print(json.dumps(statement(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
