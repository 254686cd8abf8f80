"""Read TensorBoard's event files without TensorBoard."""

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def events(folder: Path) -> list[Event]:
    """Read event files by their framing: length (8 bytes), its checksum (4), record, its checksum (4)."""
    found = []
    for path in sorted((folder / "tensorboard").glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def event_steps(folder: Path) -> list[int]:
    """Steps that have numbers."""
    return [event.step for event in events(folder) if event.summary.value]
