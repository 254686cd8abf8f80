"""Write a plan's figures: bytes, times, rates."""

GIB = 2**30
_WORDS = {
    "prefill": "prompts read",
    "decode": "answers written",
    "reward": "reward scores",
    "reference": "reference",
    "old": "old log-probabilities and values",
    "update": "updates",
}
_BOUND = {"products": "products", "memory": "memory", "collectives": "exchanges"}


def size(count: float) -> str:
    """Write bytes with the unit that leaves few digits: 12.3 GiB, 640 MiB."""
    for unit, scale in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            value = count / scale
            return f"{value:,.0f} {unit}" if value >= 99.5 else f"{value:.3g} {unit}"
    return f"{count:.0f} B"


def seconds(value: float) -> str:
    """Write a time: 7.31 s, 24.1 ms."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def hours(value: float) -> str:
    """Write a long time: 42 s, 3.4 h, 2.1 days."""
    if value < 1 / 60:
        return seconds(3600 * value)
    if value < 1:
        return f"{60 * value:.3g} min"
    return f"{value:.3g} h" if value < 72 else f"{value / 24:.3g} days"


def operations(value: float) -> str:
    """Write floating-point operations: 437 T, 19.9 P."""
    for unit, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def money(value: float) -> str:
    return f"{value:,.0f} USD" if value >= 100 else f"{value:.2f} USD"


def phase(name: str) -> str:
    """Say what a phase is."""
    return _WORDS[name]


def bound(name: str) -> str:
    """Say what a phase waits for most."""
    return _BOUND[name]


def change(values: dict[str, object]) -> str:
    """Write settings as they are given behind CONFIG."""
    written = []
    for key, value in values.items():
        text = "null" if value is None else str(value)
        if isinstance(value, dict):
            text = "{" + ", ".join(f"{name}: {one}" for name, one in value.items()) + "}"
        written.append(f'"{key}={text}"' if " " in text else f"{key}={text}")
    return " ".join(written)
