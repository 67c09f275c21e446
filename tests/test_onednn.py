"""oneDNN's own account is read as it is printed, and only what multiplies matrices counts."""

from __future__ import annotations

import pytest

from tasks.onednn import executed_kernels, parse


@pytest.mark.parametrize(
    ("line", "kernel"),
    [
        (
            "onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core_vnni,undef,"
            "src:u8::blocked:ab::f0 wei:s8:a:blocked:BA16a64b4a::f0 dst:f32::blocked:ab::f0,attr,,128x768:768x768,0.3",
            "brg_matmul:avx512_core_vnni u8-s8-f32",
        ),
        (
            "onednn_verbose,primitive,exec,cpu,inner_product,brgemm:avx512_core_amx,forward_inference,"
            "src_bf16::blocked:ab::f0 wei_bf16:a:blocked:BA16a64b2a::f0 dst_bf16::blocked:ab::f0,attr,,mb64,0.1",
            "brgemm:avx512_core_amx bf16-bf16-bf16",
        ),
        (
            "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:ab::f0 dst:f32::,,,1x1",
            None,
        ),
        ("onednn_verbose,v1,info,cpu,isa:Intel AVX-512", None),
        ("something else that the cell printed", None),
    ],
)
def test_a_line_names_the_kernel_and_its_types(line: str, kernel: str | None) -> None:
    assert parse(line) == kernel


@pytest.mark.real
def test_a_product_by_onednn_is_seen_with_its_kernel(capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    weights = torch.randn(64, 64).to_mkldnn()
    _, seen = executed_kernels(lambda: torch.ops.aten.mkldnn_linear(torch.randn(8, 64).to_mkldnn(), weights, None))
    assert sum(seen.values()) == 1
    assert next(iter(seen)).endswith("f32-f32-f32")
    assert "onednn_verbose" not in capfd.readouterr().out
