"""Keep compiled programs where a run that is started again finds them: JAX's persistent cache, while a stage runs.

Process 0 writes what took at least a second to compile (JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS), all read. JAX's
key holds the program, its options, versions and devices. With several processes on CPUs it is another one in each (jax
0.10.2 takes the fingerprint of each one's own topology), so that there only process 0 finds programs again.
"""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from podium.parallel import distributed

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_FOLDER, _OF_XLA = "jax_compilation_cache_dir", "jax_persistent_cache_enable_xla_caches"
# Counted by JAX: programs asked for, and those of them that were there.
_ASKED, _FOUND = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"


@contextlib.contextmanager
def kept_in(place: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """Keep programs in a folder, or behind a gs:// or s3:// URI, and say how many were there; None keeps none.

    A user's own JAX_COMPILATION_CACHE_DIR is left as it is. Nothing is kept in a folder that is another one in each
    process: where some load a program and others compile it, those that compile may wait for the rest.
    """
    if place is None or os.environ.get(_VARIABLE):
        yield
        return
    if not distributed.is_common(place):
        say(f"podium: compiled programs are not kept: {place} is not the same folder for all processes")
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from podium.parallel.hardware import processor_digest

    if jax.default_backend() == "cpu":
        # Two kinds of CPUs have one key: the fingerprint of JAX's topology is the same under --xla_cpu_max_isa=AVX2.
        place = f"{place.rstrip('/')}/{processor_digest()}"
    counts: collections.Counter[str] = collections.Counter()

    def count(event: str, **_: object) -> None:
        counts[event] += 1

    # XLA's own caches would make the place a part of every key, and take a URI for the name of a folder here.
    settings = {_FOLDER: place, _OF_XLA: "none"}
    before = {name: getattr(jax.config, name) for name in settings}
    jax.monitoring.register_event_listener(count)
    try:
        _set(settings)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.monitoring.unregister_event_listener(count)
        _set(before)
        compilation_cache.reset_cache()
    if counts[_FOUND]:
        say(f"podium: {counts[_FOUND]} of {counts[_ASKED]} programs were compiled before, in {place}")


def _set(settings: Mapping[str, str | None]) -> None:
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)
