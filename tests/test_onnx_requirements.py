"""What ONNX Runtime's kernels need of a CPU, and the small products that tell what a profile does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import MACHINE

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Workload
from tasks import instruction_sets, onnx_probes
from tasks.method import find_method
from tasks.onnx_probes import RoundingChecked, rounds_operands, sums_saturate
from tasks.onnx_runtime import FAST_MATH

ARM = replace(MACHINE, system="Linux 6.1", instruction_sets=("asimd", "asimddp", "bf16"))
X86 = replace(MACHINE, system="Linux 6.1", instruction_sets=("avx2", "avx512_bf16", "amx_bf16"))

DYNAMIC = "onnxruntime-int8-dynamic"

BecomeCpu = Callable[..., None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> BecomeCpu:
    """Makes this CPU another one: `become("x86_64", "avx2")`."""

    def change(machine: str, *flags: str) -> None:
        monkeypatch.setattr(instruction_sets.platform, "machine", lambda: machine)
        monkeypatch.setattr(instruction_sets, "cpu_flags", lambda: frozenset(flags))

    return change


def test_bfloat16_products_are_supported_on_arm_with_such_instructions() -> None:
    find_method("onnxruntime-bf16").check_supported(ARM, "cpu")


@pytest.mark.parametrize(
    "machine", [X86, replace(ARM, instruction_sets=("asimd",)), replace(ARM, system="Darwin 24.0")]
)
def test_bfloat16_products_are_unsupported_elsewhere_with_the_reason(machine: object) -> None:
    with pytest.raises(MethodUnsupportedError, match=r"needs Linux on an arm64 CPU with bf16 .* no such kernels"):
        find_method("onnxruntime-bf16").check_supported(machine, "cpu")  # type: ignore[arg-type]


@pytest.mark.real
def test_products_that_are_not_rounded_to_bfloat16_fail_the_proof(tmp_path: Path) -> None:
    onnx_probes.write_rounding_probe(tmp_path)

    class Fine:
        def proof(self) -> dict[str, str]:
            return {"provider": "CPUExecutionProvider"}

    call = RoundingChecked(Fine(), tmp_path, {})  # type: ignore[arg-type]
    with pytest.raises(ProofFailedError, match="products are exact in FP32"):
        call.proof()


@pytest.mark.real
def test_rounding_is_seen_where_there_is_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_probes.write_rounding_probe(tmp_path)
    assert not rounds_operands(tmp_path, {})
    rounded = (onnx_probes._unrounded().view(np.uint32) & 0xFFFF0000).view(np.float32)
    monkeypatch.setattr(onnx_probes, "_run", lambda _path, _entries, given: given @ rounded)
    assert rounds_operands(tmp_path, {FAST_MATH: "1"})


@pytest.mark.real
@pytest.mark.parametrize(("signed", "reduced"), [(True, False), (True, True), (False, False)])
def test_sums_of_this_cpu_are_exact_or_its_flags_said_so(tmp_path: Path, signed: bool, reduced: bool) -> None:
    onnx_probes.write_saturation_probe(tmp_path, signed=signed, reduced=reduced)
    expected = signed and not reduced and instruction_sets.byte_sums_may_overflow()
    assert sums_saturate(tmp_path, signed=signed, reduced=reduced) == expected


@pytest.mark.real
def test_sums_that_come_out_too_small_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_probes.write_saturation_probe(tmp_path, signed=True, reduced=False)
    largest = np.iinfo(np.int16).max
    monkeypatch.setattr(onnx_probes, "_run", lambda _path, _entries, given: np.full(given.shape, 32 * largest))
    assert sums_saturate(tmp_path, signed=True, reduced=False)


@pytest.mark.parametrize(
    ("machine", "flags", "options", "reduced"),
    [
        ("x86_64", ["avx2"], {}, True),
        ("x86_64", ["avx2", "avx512f"], {}, True),
        ("x86_64", [], {}, True),
        ("x86_64", ["avx2", "avx_vnni"], {}, False),
        ("x86_64", ["avx512f", "avx512_vnni"], {}, False),
        ("aarch64", [], {}, False),
        ("x86_64", ["avx2"], {"weight_type": "uint8"}, False),
        ("x86_64", ["avx2"], {"reduce_range": False}, False),
        ("x86_64", ["avx512_vnni"], {"reduce_range": True}, True),
    ],
)
def test_weights_have_seven_bits_only_where_eight_would_overflow(
    become: BecomeCpu, machine: str, flags: list[str], options: dict[str, object], reduced: bool
) -> None:
    become(machine, *flags)
    depends = find_method(DYNAMIC).depends_on(Workload("cpu", 2, 1, 64, options))
    assert depends is not None
    assert depends["reduce_range"] is reduced


def test_an_installed_library_that_cannot_be_imported_is_unsupported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(MethodUnsupportedError, match=r"installed but cannot be imported: libgomp\.so\.1 is missing"):
        find_method("onnxruntime-fp32").check_supported(X86, "cpu")
