"""Exchanges are read from programs that XLA compiled for eight devices here, and from lines as it writes them for TPUs.

Seen to fail: with the body of a loop taken once, with the pieces of one exchange counted apart.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from podium.parallel.mesh import make_mesh
from podium.planning.collectives import axes_of, collectives_in
from podium.planning.hlo import parse, size_of, trip_count
from podium.planning.roofline import Collective

SHAPE = {"slice": 1, "data": 1, "fsdp": 4, "tensor": 2}


def compiled(function: object, *arguments: tuple[tuple[int, ...], PartitionSpec], out: PartitionSpec) -> str:
    """The program's text on fsdp 4 x tensor 2, for float32 arrays of these shapes, laid out so."""
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec)) for shape, spec in arguments]
    program = jax.jit(function, out_shardings=NamedSharding(mesh, out))
    with jax.set_mesh(mesh):
        return program.lower(*shapes).compile().as_text()


def test_an_all_reduce_has_its_axis_and_bytes() -> None:
    """[8, 16] cut over what is summed: each device brings a whole product of 8 x 4 x 4 bytes."""
    text = compiled(
        jnp.matmul,
        ((8, 16), PartitionSpec(None, "fsdp")),
        ((16, 4), PartitionSpec("fsdp", None)),
        out=PartitionSpec(),
    )
    assert collectives_in(text, SHAPE)["update"] == [
        Collective("all-reduce", "fsdp", 1.0, 2 * 8 * 4 * 4 * 3 / 4, False, False)
    ]


def test_a_gather_in_a_loop_counts_every_turn() -> None:
    """A stack of 5 matrices [16, 16], each cut over fsdp: 64 float32 on each device, sent to 3 others."""

    def stacked(x: jax.Array, weights: jax.Array) -> jax.Array:
        def layer(carry: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
            whole = jax.lax.with_sharding_constraint(weight, PartitionSpec(None, None))
            return jnp.tanh(carry @ whole), None

        return jax.lax.scan(layer, x, weights)[0]

    text = compiled(
        stacked,
        ((8, 16), PartitionSpec("tensor", None)),
        ((5, 16, 16), PartitionSpec(None, "fsdp", None)),
        out=PartitionSpec("tensor", None),
    )
    found = collectives_in(text, SHAPE)["update"]
    gathers = [one for one in found if one.kind == "all-gather" and one.axis == "fsdp"]
    assert [(one.count, one.sent) for one in gathers] == [(5.0, 5 * 64 * 4 * 3)]


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ([[0, 1], [2, 3], [4, 5], [6, 7]], "tensor"),
        ([[0, 2, 4, 6], [1, 3, 5, 7]], "fsdp"),
        ([list(range(8))], "fsdp+tensor"),
        ([[0], [1]], "none"),
    ],
)
def test_groups_name_axes(groups: list[list[int]], axes: str) -> None:
    assert axes_of(groups, SHAPE) == axes


# As libtpu 0.0.42 writes them: a gather in three pieces of one chain, groups by name, a fused reduce-scatter, a loop
# whose turns follow from its condition and from how far its body counts.
TPU = """HloModule jit_step, entry_computation_layout={()->()}

%piece.1 (p.1: bf16[1,8,4]) -> bf16[1,16,4] {
  %p.1 = bf16[1,8,4]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[1,16,4]{2,1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=5, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}, use_global_device_ids=true, frontend_attributes={chain_id="0"}, metadata={op_name="jit(step)/phase.reference/while/body/dot_general"}
}

%async_collective_fusion.2 (p.2: bf16[1,8,4]) -> bf16[1,16,4] {
  %p.2 = bf16[1,8,4]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[1,16,4]{2,1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=5, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}, use_global_device_ids=true, frontend_attributes={chain_id="0"}
}

%all-reduce-scatter.3 (p.3: bf16[16,4]) -> bf16[4,4] {
  %p.3 = bf16[16,4]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.3 = bf16[16,4]{1,0:T(8,128)(2,1)} all-reduce(%p.3), channel_id=6, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, use_global_device_ids=true, to_apply=%add.1
  ROOT %slice.3 = bf16[4,4]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.3), dynamic_slice_sizes={4,4}
}

%body.4 (s.4: (s32[], bf16[1,8,4])) -> (s32[], bf16[1,8,4]) {
  %s.4 = (s32[]{:T(128)}, bf16[1,8,4]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %two.4 = s32[]{:T(128)} constant(2)
  %turn.4 = s32[]{:T(128)} get-tuple-element(%s.4), index=0
  %x.4 = bf16[1,8,4]{2,1,0:T(8,128)(2,1)} get-tuple-element(%s.4), index=1
  %start.4 = bf16[1,16,4]{2,1,0:T(8,128)(2,1)} fusion(%x.4), kind=kCustom, calls=%piece.1
  %middle.4 = bf16[1,16,4]{2,1,0:T(8,128)(2,1)} fusion(%x.4), kind=kOutput, calls=%async_collective_fusion.2
  %next.4 = s32[]{:T(128)} add(%turn.4, %two.4)
  ROOT %t.4 = (s32[]{:T(128)}, bf16[1,8,4]{2,1,0:T(8,128)(2,1)}) tuple(%next.4, %x.4)
}

%condition.5 (s.5: (s32[], bf16[1,8,4])) -> pred[] {
  %s.5 = (s32[]{:T(128)}, bf16[1,8,4]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %limit.5 = s32[]{:T(128)} constant(12)
  %turn.5 = s32[]{:T(128)} get-tuple-element(%s.5), index=0
  ROOT %lt.5 = pred[]{:T(512)} compare(%turn.5, %limit.5), direction=LT
}

ENTRY %main.6 (a.6: (s32[], bf16[1,8,4]), b.6: bf16[16,4]) -> bf16[4,4] {
  %a.6 = (s32[]{:T(128)}, bf16[1,8,4]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %b.6 = bf16[16,4]{1,0:T(8,128)(2,1)} parameter(1)
  %while.6 = (s32[]{:T(128)}, bf16[1,8,4]{2,1,0:T(8,128)(2,1)}) while(%a.6), condition=%condition.5, body=%body.4, metadata={op_name="jit(step)/phase.reference/while"}
  %permute.6 = bf16[16,4]{1,0:T(8,128)(2,1)} collective-permute-start(%b.6), channel_id=7, source_target_pairs={{0,1},{1,0}}
  ROOT %fusion.6 = bf16[4,4]{1,0:T(8,128)(2,1)} fusion(%b.6), kind=kCustom, calls=%all-reduce-scatter.3
}
"""  # noqa: E501


def test_a_program_for_tpus_is_read() -> None:
    module = parse(TPU)
    assert trip_count(module, module.named["main.6"]["while.6"]) == 6
    found = collectives_in(TPU, SHAPE)
    assert found["reference"] == [Collective("all-gather", "fsdp", 6.0, 6 * 64.0 * 3, True, False)]
    assert found["update"] == [
        Collective("collective-permute", "tensor", 1.0, 128.0, True, False),
        Collective("reduce-scatter", "fsdp", 1.0, 128.0 * 3 / 4, False, False),
    ]


def test_sizes_of_types() -> None:
    assert size_of("bf16[8,128]{1,0:T(8,128)(2,1)S(1)}") == 2048
    assert size_of("(f32[4]{0}, pred[3]{0}, /*index=2*/u32[]{:S(2)})") == 16 + 3 + 4
    assert size_of("f8e4m3fn[10]{0}") == 10


# Exchanges that `shard_map` makes: two places of the source, one of which was copied.
WRITTEN = """HloModule jit_step, entry_computation_layout={()->()}

ENTRY %main.1 (a.1: s32[4,8]) -> s32[16,8] {
  %a.1 = s32[4,8]{1,0} parameter(0)
  %one.1 = s32[16,8]{1,0} all-gather(%a.1), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, metadata={op_name="jit(step)/phase.reward/shard_map/all_gather" stack_frame_id=1}
  %copy.1 = s32[16,8]{1,0} all-gather(%a.1), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, metadata={op_name="jit(step)/phase.reward/shard_map/all_gather" stack_frame_id=1}
  ROOT %two.1 = s32[16,8]{1,0} all-gather(%a.1), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, metadata={op_name="jit(step)/phase.reward/shard_map/all_gather" stack_frame_id=2}
}
"""  # noqa: E501


def test_exchanges_of_one_channel_are_told_apart_by_where_they_were_written() -> None:
    (found,) = collectives_in(WRITTEN, SHAPE)["reward"]
    assert found == Collective("all-gather", "fsdp", 2.0, 2 * 128.0 * 3, False, False)
