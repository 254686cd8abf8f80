"""Files that several processes read by parts: all bytes once, equal parts, digests that fit together."""

import hashlib
import itertools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.storage.parts import MANIFEST, PartReader, noted_trees, piece_size, shares, tree_digest, whole_and_parts

SIZES = st.lists(st.integers(0, 1 << 21) | st.integers(0, 1 << 34), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 9))
def test_every_byte_belongs_to_one_process_and_parts_are_equal_up_to_a_piece(
    lengths: list[int], processes: int
) -> None:
    sizes = {Path(f"{number}.safetensors"): length for number, length in enumerate(lengths)}
    parts = shares(sizes, processes)
    assert len(parts) == processes
    for path, size in sizes.items():
        bounds = [part[path] for part in parts if path in part]
        assert [begin for begin, _ in bounds] == [0, *(end for _, end in bounds[:-1])][: len(bounds)]
        assert not size or bounds[-1][1] == size
        assert all(begin % piece_size(size) == 0 and begin < end for begin, end in bounds)
    largest = max(sum(end - begin for begin, end in part.values()) for part in parts)
    assert largest <= sum(lengths) / processes + 2 * max(map(piece_size, lengths))


@pytest.mark.parametrize("size", [1, 1 << 16, (1 << 28), (1 << 28) + 1, 5 * 10**9, 10**12])
def test_a_file_has_at_most_4096_pieces(size: int) -> None:
    piece = piece_size(size)
    assert piece >= 1 << 16 and piece & (piece - 1) == 0
    assert -(-size // piece) <= 4096
    assert piece == 1 << 16 or -(-size // (piece // 2)) > 4096


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5 << 16), st.integers(1, 4), st.randoms(use_true_random=False))
def test_what_parts_read_is_the_file_and_its_digests(size: int, processes: int, rng: random.Random) -> None:
    content = random.Random(size).randbytes(size)
    cuts = sorted({0, size, *(rng.randrange(size + 1) for _ in range(5))})
    wanted = [cut for cut in itertools.pairwise(cuts) if rng.random() < 0.8]
    pieces, joined = list[str](), bytearray(size)
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        for part in shares({path: size}, processes):
            for begin, end in part.values():
                with PartReader(path, begin, end, digests=True) as reader:
                    for first, last in ((max(first, begin), min(last, end)) for first, last in wanted):
                        if first < last:
                            reader.copy(first, memoryview(joined)[first:last])
                    pieces += reader.finish()
        assert (hashlib.sha256(content).hexdigest(), tree_digest(pieces)) == whole_and_parts(path)
    assert all(joined[first:last] == content[first:last] for first, last in wanted)


def read_bytes() -> int:
    """Return the bytes that this process has read from files (Linux: proc(5))."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_without_digests_only_pieces_with_wanted_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(range(256)) * (1 << 12))
    got = bytearray(4)
    before = read_bytes()
    with PartReader(path, 0, 1 << 20, digests=False) as reader:
        reader.copy((1 << 19) + 1, memoryview(got))
        assert reader.finish() == []
    assert 1 << 16 <= read_bytes() - before < 1 << 17
    assert got == bytes([1, 2, 3, 4])


def test_a_file_that_becomes_shorter_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(1 << 17))
    with PartReader(path, 0, 1 << 17, digests=True) as reader:
        path.write_bytes(bytes(1 << 16))
        with pytest.raises(EOFError, match="became shorter"):
            reader.finish()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {}}}'])
def test_a_manifest_of_another_program_notes_nothing(tmp_path: Path, content: str) -> None:
    assert noted_trees(tmp_path) == {}
    (tmp_path / MANIFEST).write_text(content)
    assert noted_trees(tmp_path) == {}
