"""What kernels' names and a profile prove, where FP16 ends, and whether the runtimes' CUDA versions go together."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_up import MACHINE

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Gpu
from tasks import cuda_versions, gpu_settings
from tasks.cuda_versions import cuda_major, needs_driver, needs_matching_cuda
from tasks.gpu_kernels import check_captured, check_products, executed_kernels, kernel_precision, kernels_of
from tasks.gpu_settings import needs_capability, needs_cuda_build, rounds_to_tf32
from tasks.half import explain_overflow, watching
from tasks.method import find_method

CUDNN_ATTENTION = (
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_4x1x1_cga1x1x1_kernel0_0"
)

NAMES = {
    "ampere_sgemm_64x32_sliced1x4_tn": "fp32",
    "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_tn_align1>(T1::Params)": "fp32",
    "sm90_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize64x64x8": "fp32",
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)": "fp32",
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64_16x6_tn_align4>(T1::Params)": "tf32",
    "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize64x64x32": "tf32",
    "ampere_fp16_s16816gemm_fp16_64x64_ldg8_f2f_stages_64x5_tn": "fp16",
    "void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm_relu_f16_64x64_64x6_tn_align8>": "fp16",
    "nvjet_hsh_64x8_64x16_4x1_v_bz_TNN": "fp16",
    "turing_fp16_s1688gemm_fp16_128x64_ldg8_f2f_tn": "fp16",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, cutlass::half_t>>": "fp16",
    "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)": "fp16",
    "void gemvNSP_kernel<__half, __half, __half, float, 1, 32, 4, 1024>": "fp16",
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_tn": "bf16",
    "nvjet_tst_128x64_64x8_2x1_v_bz_TNT": "bf16",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, cutlass::bfloat16_t>>": "bf16",
    "nvjet_qqtst_128x64_128x6_1x2_h_bz_TNN": "fp8",
    "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x128": "fp8",
    "sm90_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize64x64x64": "int8",
    "cutlass_80_tensorop_i16832gemm_s8_128x64_64x6_tn_align16": "int8",
    "nvjet_sss_64x32_64x8": None,
    "nvjet_sm90_tst_192x8_64x8_1x2_h_bz_coopA_TNN": "bf16",
    "nvjet_sm90_tss_64x8_64x16_1x1_h_bz_splitK_NNT": "bf16",
    "nvjet_sm90_hsh_256x128_64x4_2x1_v_bz_TNN": "fp16",
    "nvjet_sm100_qqtst_128x256_128x6_2x1_2cta_v_bz_bias_TNT": "fp8",
    "nvjet_sm90_sss_64x32_64x8": None,
    CUDNN_ATTENTION: "fp16 or bf16",
    "triton_tem_fused_addmm_3": None,
}


@pytest.mark.parametrize(("name", "precision"), NAMES.items())
def test_a_products_arithmetic_is_read_from_its_kernels_name(name: str, precision: str | None) -> None:
    assert kernel_precision(name) == precision
    assert kernels_of([(name, True, 1)]).products == {precision or "unknown": 1}


@pytest.mark.parametrize(
    "name",
    [
        "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half, float>",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, float, float>",
        "triton_poi_fused_gelu_1",
        "triton_poi_fused__scaled_dot_product_efficient_attention_clone_3",
        "triton_red_fused_addmm_native_layer_norm_4",
    ],
)
def test_other_kernels_are_no_products(name: str) -> None:
    assert kernels_of([(name, True, 1)]).products == {}


def profile(*kernels: str, launches: int = 0, graphs: int = 0) -> Any:
    """One call's events."""
    host = [("cudaLaunchKernel", False, 5)] * launches + [("cudaGraphLaunch", False, 5)] * graphs
    return kernels_of([*host, *((name, True, 1_000) for name in kernels), ("Memcpy HtoD (Pinned)", True, 9)])


def test_copies_are_not_kernels_and_busy_time_is_theirs_alone() -> None:
    ran = profile("nvjet_hsh_64x8", "elementwise", launches=2)
    assert (ran.executed, ran.busy_ns, ran.launches, ran.graph_launches) == (2, 2_000, 2, 0)


def test_a_product_in_another_arithmetic_fails_the_proof_and_an_unknown_one_does_not() -> None:
    check_products(profile("nvjet_hsh_64x8", "triton_tem_fused_mm_0"), ("fp16",))
    with pytest.raises(ProofFailedError, match=r"another arithmetic than promised: 1 in fp32 \(ampere_sgemm"):
        check_products(profile("nvjet_hsh_64x8", "ampere_sgemm_32x32"), ("fp16",))


def test_cudnns_attention_is_of_sixteen_bits_whatever_model_it_runs_in_and_no_fp32() -> None:
    for precision in ("fp16", "bf16"):
        check_products(profile(CUDNN_ATTENTION), (precision, "int8"))
    with pytest.raises(ProofFailedError, match="1 in fp16 or bf16"):
        check_products(profile(CUDNN_ATTENTION), ("fp32", "tf32"))


def test_a_proof_whose_products_have_mostly_unknown_names_says_so() -> None:
    assert (
        "most product kernels"
        in profile("nvjet_sm90_zzz_1", "nvjet_sm90_zzz_2", "nvjet_hsh_8").evidence()["remarks"][0]
    )
    assert profile("nvjet_sm90_zzz_1", "nvjet_hsh_8").evidence()["remarks"] == []


def test_a_stretch_of_the_call_that_somebody_named_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, named: bool) -> Any:
        time_range = SimpleNamespace(elapsed_us=lambda: 2.0)
        on_gpu = torch.autograd.DeviceType.CUDA
        return SimpleNamespace(name=name, device_type=on_gpu, time_range=time_range, is_user_annotation=named)

    recorded = [event("nvjet_hsh_64x8", False), event("## Call CompiledFxGraph fabc ##", True)]
    session = SimpleNamespace(events=lambda: recorded)
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: nullcontext(session))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert executed_kernels(lambda: None).counts == {"nvjet_hsh_64x8": 1}


def test_kernels_that_the_profiler_may_not_see_are_unknown_and_said_to_be() -> None:
    check_products(profile(), ("fp16",))
    check_captured(profile())
    assert profile().evidence()["kernels_per_call"] is None
    assert "unknown" in profile().evidence()["remarks"][0]
    assert profile("nvjet_hsh_64x8").evidence()["remarks"] == []


def test_a_promised_graph_must_have_been_launched() -> None:
    check_captured(profile("a", graphs=1))
    with pytest.raises(ProofFailedError, match="no CUDA graph was launched: 70 kernels were, one by one"):
        check_captured(profile("a", launches=70))


def test_products_in_full_fp32_are_told_from_rounded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not rounds_to_tf32("cpu")
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: torch.round(torch.mm(self, other)))
    assert rounds_to_tf32("cpu")


# FP16's end


def test_an_overflow_is_named_with_the_layer_where_it_began() -> None:
    class Loaded:
        def find_overflow(self, inputs: Any) -> str:
            del inputs
            return "layer.3"

    with pytest.raises(ProofFailedError, match=r"FP16 overflows: numbers beyond 65504 .* first in layer\.3.* bf16"):
        explain_overflow(find_method("pytorch-fp16"), Loaded(), {})  # type: ignore[arg-type]
    with pytest.raises(ProofFailedError, match=r"^logits are not finite$"):
        explain_overflow(find_method("pytorch-bf16"), Loaded(), {})  # type: ignore[arg-type]


def test_the_first_module_that_overflows_is_found_in_half_precision() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(3))).half()
    with torch.no_grad():
        for number, layer in enumerate(model):
            layer.weight.fill_(300.0 if number else 1.0)  # type: ignore[union-attr]
    with watching(model) as seen, torch.inference_mode():
        model(torch.ones(1, 4, dtype=torch.float16))
    assert list(seen) == ["2"]
    with watching(model) as seen, torch.inference_mode():
        model(torch.full((1, 4), 1e-3, dtype=torch.float16))
    assert not seen


def test_a_cell_whose_logits_are_infinite_is_invalid_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.actor import CellProcess
    from tasks.controls import Null

    process = CellProcess([0])
    process._method = find_method("control-null")
    process._call = lambda _: {"logits": np.full((1, 2), np.inf, np.float32)}  # type: ignore[assignment]
    monkeypatch.setattr(Null, "precision", "fp16")
    with pytest.raises(ProofFailedError, match="FP16 overflows"):
        process._answer({"input_ids": np.ones((1, 4), np.int64)}, [])


# CUDA versions


@pytest.mark.parametrize(
    ("text", "name", "major"),
    [
        ("cuda: Optional[str] = '13.0'\n", "cuda", 13),
        ("cuda: Optional[str] = None\n", "cuda", None),
        ('__version__ = "1.31"\ncuda_version = "12.8"\n', "cuda_version", 12),
        ("nothing = 1", "cuda", None),
    ],
)
def test_the_cuda_that_a_package_is_built_for_is_read_from_its_files(text: str, name: str, major: int | None) -> None:
    assert cuda_major(text, name) == major


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(torch_major: int | None, onnxruntime_major: int | None, libraries: set[int] | None = None) -> None:
        monkeypatch.setattr(cuda_versions, "torch_cuda", lambda: torch_major)
        monkeypatch.setattr(gpu_settings, "torch_cuda", lambda: torch_major)
        monkeypatch.setattr(cuda_versions, "onnxruntime_cuda", lambda: onnxruntime_major)
        monkeypatch.setattr(cuda_versions, "provided_cuda", lambda: frozenset(libraries or ()))

    return install


@pytest.mark.parametrize("installed", [(13, 13), (12, 13, {12, 13}), (None, 13, {13}), (13, None)])
def test_runtimes_whose_libraries_are_there_go_together(versions: Any, installed: tuple[Any, ...]) -> None:
    versions(*installed)
    needs_matching_cuda("onnxruntime-fp16")


def test_runtimes_of_two_cuda_versions_are_refused_with_what_to_install(versions: Any) -> None:
    versions(12, 13, {12})
    with pytest.raises(MethodUnsupportedError, match=r"built for CUDA 13, but PyTorch is built for CUDA 12 .* pip"):
        needs_matching_cuda("onnxruntime-fp16")


@pytest.mark.parametrize("installed", ["libcudnn.so.9", None])
def test_without_pytorchs_libraries_those_of_the_system_must_do(
    versions: Any, monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    versions(None, 13)
    monkeypatch.setattr(cuda_versions, "find_library", lambda _: installed)
    if installed:
        needs_matching_cuda("onnxruntime-fp16")
    else:
        with pytest.raises(MethodUnsupportedError, match=r"needs CUDA 13's libraries and cuDNN, .*\[cuda,cudnn\]"):
            needs_matching_cuda("onnxruntime-fp16")


def on(**changes: Any) -> Any:
    """A machine with a GPU."""
    gpu = Gpu("Made Up GPU", "GPU-0", 10**9, (7, 5), (), 12)
    return replace(MACHINE, gpus=("Made Up GPU",), gpu_devices=(replace(gpu, **changes),))


def test_a_driver_that_is_too_old_for_pytorch_is_explained(versions: Any) -> None:
    versions(13, 13)
    with pytest.raises(MethodUnsupportedError, match="built for CUDA 13, but this driver serves CUDA 12 at most"):
        needs_cuda_build("pytorch-fp32", on())
    needs_cuda_build("pytorch-fp32", on(driver_cuda=13))
    versions(None, 13)
    with pytest.raises(MethodUnsupportedError, match=r"needs a PyTorch built for CUDA; torch .* is a CPU build"):
        needs_cuda_build("pytorch-fp32", on())


def test_a_driver_that_is_too_old_for_onnx_runtime_is_explained() -> None:
    with pytest.raises(MethodUnsupportedError, match="m: onnxruntime-gpu is built for CUDA 13, but this driver serves"):
        needs_driver("m", on(), "onnxruntime-gpu", 13)
    needs_driver("m", on(), "onnxruntime-gpu", 12)
    needs_driver("m", on(), "onnxruntime-gpu", None)


def test_onnx_runtimes_methods_ask_for_the_driver(versions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(13, 13)
    monkeypatch.setattr("tasks.onnx_runtime.onnxruntime_cuda", lambda: 13)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(MethodUnsupportedError, match="onnxruntime-gpu is built for CUDA 13, but this driver"):
        find_method("onnxruntime-fp16").check_supported(on(), "cuda")


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("pytorch-fp16-compile", "needs_c_compiler"),
        ("pytorch-fp8-dynamic-compile", "needs_c_compiler"),
        ("pytorch-fp16-aot-cudagraph", "needs_c_compiler"),
        ("pytorch-fp16-aot", "needs_cuda_headers"),
    ],
)
def test_methods_that_compile_ask_for_what_compiling_takes(
    method: str, needs: str, versions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("needs_c_compiler", "needs_cuda_headers"):
        monkeypatch.setattr(f"tasks.inductor_cuda.{name}", lambda _, name=name: asked.append(name))
    monkeypatch.setattr("tasks.method.find_spec", lambda _: True)
    versions(12, 12)
    find_method(method).check_supported(on(capability=(9, 0)), "cuda")
    assert needs in asked


def test_a_precision_that_the_chip_has_no_units_for_is_unsupported() -> None:
    needs_capability("m", on(), "int8")
    with pytest.raises(MethodUnsupportedError, match=r"in fp8 \(compute capability 8\.9\); .* has 7\.5"):
        needs_capability("m", on(), "fp8")
    needs_capability("m", on(capability=None), "fp8")


def test_what_to_install_is_listed_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Square brackets mean styles to the library that draws tables; those of an extra must come out."""
    from farm import machine
    from farm.cli.commands import run_app

    monkeypatch.setattr(machine, "_describe", lambda: on(capability=(9, 0), driver_cuda=13))
    monkeypatch.setattr("tasks.tensorrt.find_spec", lambda _: None)
    assert run_app(["methods"]) == 0
    assert "'inference-farm[tensorrt]'" in "".join(capsys.readouterr().out.split())
