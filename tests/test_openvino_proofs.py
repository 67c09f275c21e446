"""OpenVINO's proof counts what the runtime's own graph multiplies, and fails where that is not what was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import MACHINE, MODEL, plan_of, suite_of

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.plan import check_support
from farm.records import Workload
from tasks import openvino
from tasks.method import find_method
from tasks.openvino import CompiledCallable
from tasks.openvino_proof import ExecutedNode, attention_work, check_precisions, linear_work, shares

LENGTH, WIDTH, INNER = 8, 16, 64
CONFIG = {"model_type": "distilbert", "n_layers": 1, "dim": WIDTH, "hidden_dim": INNER, "vocab_size": 30}


def product(rows: int, inner: int, width: int, precision: str = "f32", rank: int = 3) -> ExecutedNode:
    """A product with weights, as OpenVINO 2026.0 lists it."""
    batch = (1,) * (rank - 1 - (rows > 0)) + ((rows,) if rows else ())
    read = ((precision, (*batch, inner)), (precision, (width, inner)), ("f32", (width,)))
    return ExecutedNode("FullyConnected", precision, f"brgemm_{precision}", read, (*batch, width))


def attention(queries: str = "f32", values: str = "f32", length: int = LENGTH) -> ExecutedNode:
    """Fused attention of two heads, whose own precision is that of the mask where nothing is quantized."""
    heads, size = 2, WIDTH // 2
    read = (
        (queries, (1, length, heads, size)),
        (queries, (1, heads, size, LENGTH)),
        ("u8", (1, 1, length, LENGTH)),
        (values, (1, LENGTH, heads, size)),
    )
    origin = "Softmax_1,sdpa/aten.scaled_dot_product_attention.default/ScaledDotProductAttention"
    return ExecutedNode("Subgraph", "u8", "jit", read, (1, length, heads, size), origin)


def encoder(precision: str = "f32", pruned: bool = False, fused: ExecutedNode | None = None) -> list[ExecutedNode]:
    """One layer and the head of a classifier of two labels."""
    last = 1 if pruned else LENGTH
    sizes = [(last, WIDTH, WIDTH), (LENGTH, WIDTH, WIDTH), (LENGTH, WIDTH, WIDTH), (last, WIDTH, WIDTH)]
    sizes += [(last, WIDTH, INNER), (last, INNER, WIDTH), (1, WIDTH, WIDTH), (1, WIDTH, 2)]
    return [*(product(*size, precision) for size in sizes), fused or attention(precision, precision)]


@dataclass
class Compiled:
    """A compiled model whose runtime graph and properties are made up."""

    nodes: Sequence[ExecutedNode]
    hint: str = "f32"
    threads: int = 2
    served: list[str] = field(default_factory=list)

    def create_infer_request(self) -> None:
        """Nothing is inferred here."""

    def get_property(self, name: str) -> Any:
        """The settings, as OpenVINO returns them."""
        hint = SimpleNamespace(get_type_name=lambda: self.hint)
        return {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}[name]

    def get_runtime_model(self) -> SimpleNamespace:
        """The graph."""
        return SimpleNamespace(get_ordered_ops=lambda: [Listed(node) for node in self.nodes])


class Shape(list[Any]):
    """A shape that is known."""

    is_static = True


class Listed:
    """A node as OpenVINO hands it out."""

    def __init__(self, node: ExecutedNode) -> None:
        self._node = node

    def get_rt_info(self) -> dict[str, Any]:
        """What the runtime says of it."""
        node = self._node
        said = {"layerType": node.kind, "runtimePrecision": node.precision, "primitiveType": node.kernel}
        said["originalLayersNames"] = node.origin
        return {name: SimpleNamespace(astype=lambda kind, text=text: kind(text)) for name, text in said.items()}

    def get_input_size(self) -> int:
        """How much it reads."""
        return len(self._node.read)

    def get_output_size(self) -> int:
        """How much it writes."""
        return 1

    def get_input_element_type(self, at: int) -> SimpleNamespace:
        """The type of what it reads."""
        return SimpleNamespace(get_type_name=lambda: self._node.read[at][0])

    def get_input_partial_shape(self, at: int) -> Shape:
        """The shape of what it reads."""
        return _shape(self._node.read[at][1])

    def get_output_partial_shape(self, at: int) -> Shape:
        """The shape of what it writes."""
        assert at == 0
        return _shape(self._node.written)


def _shape(sizes: Sequence[int]) -> Shape:
    return Shape(SimpleNamespace(get_length=lambda size=size: size) for size in sizes)


def proof(folder: Path, method: str, compiled: Compiled, **options: Any) -> Any:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    model = replace(MODEL, folder=str(folder))
    return CompiledCallable(compiled, model, Workload("cpu", 2, 1, LENGTH, options), find_method(method)).proof()  # type: ignore[arg-type]


def test_a_float_model_proves_all_its_multiplications(tmp_path: Path) -> None:
    found = proof(tmp_path, "openvino-fp32", Compiled(encoder()))
    rows = LENGTH * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    assert found["multiply_adds_with_weights"] == rows + WIDTH * WIDTH + 2 * WIDTH
    assert found["product_shares"] == found["precision_shares"]["attention"] == {"fp32": 1.0}


def test_fp32_under_the_name_of_bf16_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match="0% of the multiplications by weights ran in bf16"):
        proof(tmp_path, "openvino-bf16", Compiled(encoder("f32"), hint="bf16"))
    assert proof(tmp_path, "openvino-bf16", Compiled(encoder("bf16"), hint="bf16"))["precision_hint"] == "bf16"


def test_a_hint_that_was_not_taken_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match="computes what is not quantized in f32, not in bf16"):
        proof(tmp_path, "openvino-int8", Compiled(encoder("i8"), hint="f32"), activations="bf16")


def test_attention_in_another_precision_fails_the_proof_of_fp32(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match="attention ran in bf16, fp32, not in fp32"):
        proof(tmp_path, "openvino-fp32", Compiled(encoder(fused=attention("bf16", "f32"))))


def test_a_whole_model_under_the_name_of_a_pruned_one_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match=r"take \d+ multiply-adds; pruned to the first token they need \d+"):
        proof(tmp_path, "openvino-fp32-pruned", Compiled(encoder()))
    assert proof(tmp_path, "openvino-fp32-pruned", Compiled(encoder(pruned=True)))


def test_the_inner_width_weighs_as_much_as_the_outer_one() -> None:
    """Of a layer 11 % of the multiplications are in a product that writes 4 % of the numbers."""
    left, done = product(1, INNER, WIDTH, "f32"), product(8, INNER, WIDTH, "u8")
    found = shares(linear_work([left, done]))
    assert found == {"fp32": 1 / 9, "int8": 8 / 9}
    with pytest.raises(ProofFailedError, match="89% of the multiplications by weights ran in int8"):
        check_precisions("int8", found, {})


def test_attention_is_counted_by_the_operands_that_reach_its_products(tmp_path: Path) -> None:
    half = encoder("i8", fused=attention("i8", "f32"))
    found = proof(tmp_path, "openvino-int8", Compiled(half), activations="f32")
    assert found["precision_shares"] == {"attention": {"fp32": 0.5, "int8": 0.5}}
    assert found["remarks"] == []
    none = encoder("i8", fused=attention("f32", "f32"))
    assert proof(tmp_path, "openvino-int8", Compiled(none), activations="f32")["remarks"] == [
        "attention was to be quantized and is not"
    ]


def test_products_with_constant_positions_are_part_of_attention() -> None:
    positions = ExecutedNode("FullyConnected", "f32", "", (("f32", (2, 8, 4)), ("f32", (2, 16, 4))), (2, 8, 16))
    assert (linear_work([positions]), attention_work([positions])) == ({}, {"fp32": 2 * 8 * 16 * 4})


def test_bf16_activations_are_refused_while_planning_where_the_cpu_has_no_bf16() -> None:
    chosen = {"method": "openvino-int8", "options": {"activations": "bf16"}}
    machine = replace(MACHINE, instruction_sets=("avx2",))
    with pytest.raises(MethodUnsupportedError, match="openvino-int8 with activations: bf16 needs BF16 instructions"):
        find_method("openvino-int8").check_options(machine, "cpu", {"activations": "bf16"})
    find_method("openvino-int8").check_options(machine, "cpu", {"activations": "auto"})
    plan = plan_of(suite_of(methods=["pytorch-fp32", chosen]), supported=check_support)
    assert set(plan.unsupported) == {"openvino-int8"}


ARM = replace(MACHINE, instruction_sets=("asimd", "asimddp", "i8mm", "bf16", "sve"))


@pytest.mark.parametrize("method_id", ["openvino-bf16", "openvino-bf16-pruned"])
def test_bf16_is_unsupported_on_arm_where_openvino_runs_fp32(method_id: str) -> None:
    with pytest.raises(MethodUnsupportedError, match=r"needs BF16 instructions of an x86 CPU .* OpenVINO runs FP32"):
        find_method(method_id).check_supported(ARM, "cpu")
    find_method(method_id).check_supported(replace(MACHINE, instruction_sets=("amx_bf16",)), "cpu")
    with pytest.raises(MethodUnsupportedError, match="activations: bf16 needs BF16 instructions of an x86 CPU"):
        find_method("openvino-int8").check_options(ARM, "cpu", {"activations": "bf16"})


@pytest.mark.parametrize(("flags", "chosen"), [(ARM.instruction_sets, "f32"), (("avx512f", "avx512_bf16"), "bf16")])
def test_int8_leaves_what_openvino_can_compute_in(
    flags: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset(flags))
    assert find_method("openvino-int8").activations(Workload("cpu", 2, 1, LENGTH, {})) == chosen  # type: ignore[attr-defined]


@pytest.mark.parametrize(("overflow", "chosen"), [(True, "enable"), (False, "disable")])
def test_weights_take_half_their_range_where_sums_of_bytes_may_overflow(
    overflow: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "byte_sums_may_overflow", lambda: overflow)
    monkeypatch.setattr(openvino, "texts_sha256", lambda _source: "")
    assert openvino.overflow_fix().value == chosen
    workload = Workload("cpu", 2, 1, LENGTH, {})
    assert find_method("openvino-int8").depends_on(workload)["half_range"] is overflow  # type: ignore[index]
