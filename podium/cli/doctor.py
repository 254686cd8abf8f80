"""The verb that says what is installed and what this machine has: what a report of a problem should hold."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

from podium.errors import install
from podium.version import __version__

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "tokenizers", "numpy", "kfp")
# For developers alone.
_HIDDEN_EXTRAS = {"dev"}
_GB = 1e9
Rows = list[tuple[str, str]]


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(epilog="Example:  podium doctor")(doctor)


def doctor() -> None:
    """Print versions, devices, memory, disk and extras.

    Put it into a report of a problem. For an extra that is not installed it gives the command that installs it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    sections = (_versions(), _devices(), _machine(), _extras())
    for rows in sections:
        for name, text in rows:
            table.add_row(name, text)
        table.add_section()
    console.print(table, markup=False, highlight=False)


def _versions() -> Rows:
    rows = [("podium", f"{__version__}  ({Path(__file__).parents[1]})"), ("python", _python())]
    return [*rows, *((name, version) for name in _LIBRARIES if (version := _version(name)))]


def _python() -> str:
    return f"{platform.python_version()}  ({sys.executable}, {platform.platform()})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Rows:
    """Ask JAX what it would compute on; whatever keeps it from that is the answer."""
    if importlib.util.find_spec("jax") is None:
        return [("devices", "unknown without jax")]
    try:
        import jax

        devices = jax.devices()
    # A driver that does not fit, a TPU that another process holds: JAX has no type of its own for these.
    except Exception as error:
        return [("devices", f"none that JAX can use: {(str(error).splitlines() or [type(error).__name__])[0]}")]
    kinds = sorted({f"{device.device_kind} ({device.platform})" for device in devices})
    return [
        ("devices", ", ".join(f"{sum(kind.startswith(d.device_kind) for d in devices)} x {kind}" for kind in kinds))
    ]


def _machine() -> Rows:
    total, free = _memory()
    rows = [
        ("processors", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"),
        (
            "memory",
            f"{free:.1f} GB free of {total:.1f} GB" + (f", limited to {limit:.1f} GB" if (limit := _limit()) else ""),
        ),
    ]
    for name, folder in (("disk here", Path.cwd()), ("disk of temporary files", Path(tempfile.gettempdir()))):
        usage = shutil.disk_usage(folder)
        rows.append((name, f"{usage.free / _GB:.1f} GB free of {usage.total / _GB:.1f} GB  ({folder})"))
    return rows


def _memory() -> tuple[float, float]:
    """Return the machine's memory and what of it is free, in GB."""
    pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    total, free = (number * os.sysconf("SC_PAGE_SIZE") / _GB for number in pages)
    # Linux can give back what it keeps of files, which the number of free pages leaves out.
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return total, int(match[1]) * 1024 / _GB if match else free


def _limit() -> float | None:
    """Return the limit of a container's memory in GB, or None where there is none."""
    text = _text("/sys/fs/cgroup/memory.max").strip()
    return int(text) / _GB if text.isdecimal() else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _extras() -> Rows:
    """Say of each extra that users install whether all of it is here."""
    rows = []
    for extra, names in sorted(_wanted().items()):
        absent = [name for name in names if _version(name) is None]
        rows.append(
            (
                f"extra {extra}",
                f"lacks {', '.join(absent[:3])}{', ...' if absent[3:] else ''}; {install(extra)}"
                if absent
                else "installed",
            )
        )
    return rows or [("extras", "unknown: podium runs from a folder that is not installed")]


def _wanted() -> dict[str, list[str]]:
    """Return the distributions of each extra, from what the installed package says of itself."""
    try:
        lines = importlib.metadata.requires("podium") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    wanted: dict[str, list[str]] = {}
    for extra, name in _requirements(lines):
        if extra not in _HIDDEN_EXTRAS:
            wanted.setdefault(extra, []).append(name)
    return wanted


def _requirements(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield extra and distribution of requirements such as `jax[cuda12]<0.11,>=0.10.2; extra == 'cuda'`.

    A requirement with an extra of its own is met by that extra's package, as jax names it: jax-cuda12-plugin, libtpu.
    """
    accelerators = {"cuda12": "jax-cuda12-plugin", "tpu": "libtpu"}
    for line in lines:
        result = re.match(r"([\w.-]+)(?:\[(\w+)\])?.*extra == ['\"](\w+)['\"]", line)
        if result:
            yield result[3], accelerators.get(result[2], result[1])
