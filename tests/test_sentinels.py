"""What a sentinel times, and the state that its readings put a round in."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tasks import kernels, operands
from tasks.kernels import KERNELS, prepare
from tasks.sentinels import RATES, REPETITION_S, STATE_CHANGE, Case, Sentinel, sized, state, usual

ROOT = Path(__file__).parents[1]
QUIET = {"fp32": 180.0, "bf16": 45.0, "int8": 600.0, "memory": 20.0}
SMALL = {
    "fp32": Case("fp32", "torch.mm", 8, 16, 24, "nn"),
    "bf16": Case("bf16", "torch.mm", 8, 16, 24, "nn"),
    "int8": Case("int8", "torch._int_mm", 32, 16, 24, "nt"),
    "memory": Case("memory", "torch.sum-int64", 4, 2, 4096, "rows"),
}
OWN_LAYOUTS = ("onnxruntime", "amx")
FLOATS = [key for key in KERNELS if key[0] in {"fp32", "bf16"} and not key[1].startswith(OWN_LAYOUTS)]


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BUFFER_BYTES", 1 << 16)
    kernels._allocated.cache_clear()


def test_rates_near_the_median_are_the_usual_state() -> None:
    assert state({rate: value * 1.14 for rate, value in QUIET.items()}, QUIET) == "usual"
    assert state({rate: value * 0.86 for rate, value in QUIET.items()}, QUIET) == "usual"


def test_a_rate_beyond_the_threshold_is_named_with_its_direction() -> None:
    assert state(QUIET | {"bf16": QUIET["bf16"] * (1 - STATE_CHANGE - 0.01)}, QUIET) == "bf16 slower"
    assert state(QUIET | {"bf16": QUIET["bf16"] * (1 + STATE_CHANGE + 0.01)}, QUIET) == "bf16 faster"


def test_a_state_is_the_same_words_whatever_the_order_of_the_readings() -> None:
    now = {"memory": 30.0, "int8": 600.0, "bf16": 45.0, "fp32": 90.0}
    assert state(QUIET | {"fp32": 1.0, "int8": 1.0}, QUIET) == "fp32+int8 slower"
    assert state(now, QUIET) == state(dict(reversed(now.items())), QUIET) == "fp32 slower, memory faster"


def test_a_rate_that_one_side_lacks_says_nothing() -> None:
    assert state({"fp32": 90.0}, {"bf16": 45.0}) == "usual"
    assert state({}, QUIET) == "usual"


def test_the_usual_rate_is_the_median_of_the_rounds_that_have_it() -> None:
    rounds = [{"fp32": 1.0, "int8": 5.0}, {"fp32": 9.0}, {"fp32": 2.0, "int8": 7.0}]
    assert usual(rounds) == {"fp32": 2.0, "int8": 6.0}


def test_no_rounds_have_no_usual_rates() -> None:
    assert usual([]) == {}


@pytest.mark.parametrize("rate", RATES)
def test_a_case_survives_json(rate: str) -> None:
    case = SMALL[rate]
    assert Case(**json.loads(json.dumps(asdict(case)))) == case


def test_a_products_work_counts_multiplications_and_additions() -> None:
    assert Case("fp32", "torch.mm", 2, 3, 5, "nn").work == 60


def test_a_reads_work_is_the_bytes_of_one_block() -> None:
    assert Case("memory", "torch.sum-int64", 7, 3, 8, "rows").work == 24


@pytest.mark.parametrize("value", [1.0, 45.0, 600.0, 50_000.0])
@pytest.mark.parametrize("side", [768, 1024, 4096])
def test_a_sized_product_fits_a_repetition_and_keeps_its_kernel(value: float, side: int) -> None:
    case = sized(Case("int8", "torch._int_mm", side, side, side, "nt"), value)
    smallest = min(case.rows, case.inner, case.columns)
    assert case.work <= REPETITION_S * value * 1e9 or smallest < 128
    assert (case.rate, case.library, case.layout) == ("int8", "torch._int_mm", "nt")


def test_a_product_that_fits_already_stays_as_it_is() -> None:
    case = Case("fp32", "torch.mm", 64, 768, 768, "nn")
    assert sized(case, 1e6) == case


@pytest.mark.parametrize("value", [0.001, 20.0, 5_000.0])
def test_a_sized_read_stays_within_a_block_and_a_buffer(value: float) -> None:
    case = sized(Case("memory", "torch.sum-int64", 4, 2048, 32_768, "rows"), value)
    assert 0 < case.work <= 64 << 20
    assert case.rows * case.work <= 256 << 20


def test_a_sentinel_reads_every_rate() -> None:
    rates = Sentinel(SMALL).measure()
    assert tuple(rates) == RATES
    assert all(rate > 0 and math.isfinite(rate) for rate in rates.values())


def test_a_sentinel_leaves_out_the_rate_of_a_missing_library_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    missing = Case("int8", "onnxruntime.MatMulInteger-u8s8", 8, 16, 24, "packed")
    sentinel = Sentinel(SMALL | {"int8": missing})
    assert tuple(sentinel.measure()) == ("fp32", "bf16", "memory")
    assert "onnxruntime" in capsys.readouterr().err


def test_a_kernel_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no fp32 kernel is called 'torch\.nn'"):
        prepare(Case("fp32", "torch.nn", 8, 8, 8, "nn"), 1)


@pytest.mark.parametrize(("rate", "library", "layout"), FLOATS)
def test_a_float_kernel_gives_the_product_of_its_operands(rate: str, library: str, layout: str) -> None:
    try:
        found = prepare(Case(rate, library, 8, 64, 32, layout), 1)()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        pytest.skip(f"not in this torch: {error}")
    expected = operands.numbers(8, 64) @ operands.numbers(32, 64).T
    np.testing.assert_allclose(found.float().numpy(), expected, atol=1e-3 if rate == "fp32" else 0.5)


@pytest.mark.parametrize("layout", ["nn", "nt"])
def test_an_integer_product_is_exact(layout: str) -> None:
    found = prepare(Case("int8", "torch._int_mm", 32, 64, 24, layout), 1)().numpy()
    expected = operands.integers(np.int8, 32, 64).astype(int) @ operands.integers(np.int8, 24, 64).astype(int).T
    np.testing.assert_array_equal(found, expected)


def test_reads_go_round_the_whole_buffer_block_by_block() -> None:
    call = prepare(SMALL["memory"], 1)
    blocks = [int(call().sum()) for _ in range(8)]
    whole = kernels._buffer(4 * 2 * 4096).view(np.int64).sum()
    assert len(set(blocks[:4])) == 4
    assert np.array(blocks[:4]).sum() == whole
    assert blocks[4:] == blocks[:4]


def test_states_are_told_without_loading_torch() -> None:
    program = "import sys, tasks.sentinels, tasks.ceilings; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert ran.stdout.strip() == "False"
