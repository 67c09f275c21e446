"""The search for ceilings: on a machine whose rates are known, and once on the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

from tasks.ceilings import (
    BUDGET_S,
    FEWEST_PAIRS,
    SCREENING_SHARE,
    search,
    search_ceilings,
)
from tasks.contests import LONGEST_CALL_S, WINDOW_S, Ceiling
from tasks.kernels import RATES, Call, Case

Kernel = tuple[str, str]
A, B, C = ("a", "nn"), ("b", "nt"), ("c", "packed")
SERVER = ("onnxruntime.MatMul", "packed")


class KnownMachine:
    """A clock that calls move forward, by work over the rate of their case, times the machine's speed at that time."""

    def __init__(
        self, rates: Mapping[Kernel, float], speed: Callable[[float], float] = lambda _: 1.0, prepare_s: float = 0.02
    ) -> None:
        self.now = 0.0
        self.prepared: list[Case] = []
        self._rates = rates
        self.speed = speed
        self._prepare_s = prepare_s

    def clock(self) -> float:
        return self.now

    def rate(self, case: Case) -> float:
        """Large products are better fed than small ones: up to a tenth slower below 1 GFLOP."""
        return self._rates[case.library, case.layout] * (1 - 0.1 / (1 + case.work / 1e9))

    def prepare(self, case: Case) -> Call:
        if (case.library, case.layout) not in self._rates:
            raise ImportError(f"No module named {case.library!r}")
        self.now += self._prepare_s
        self.prepared.append(case)

        def call() -> None:
            self.now += case.work / (self.rate(case) * self.speed(self.now) * 1e9)

        return call

    def search(self, *kernels: Kernel, budget_s: float = BUDGET_S) -> Ceiling:
        return search({"fp32": kernels}, self.prepare, budget_s, self.clock)["fp32"]


@pytest.fixture
def torch_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_fastest_kernel_at_its_best_shape_sets_the_ceiling() -> None:
    machine = KnownMachine({A: 100.0, B: 200.0, C: 150.0})
    found = machine.search(A, B, C)
    assert (found.case.library, found.case.layout) == B
    assert found.value == pytest.approx(max(machine.rate(case) for case in machine.prepared))


def test_more_kernels_never_lower_the_ceiling() -> None:
    rates = {A: 100.0, B: 20.0, C: 150.0, ("d", "nn"): 149.0, ("e", "nn"): 3.0, ("f", "nt"): 170.0}
    values = [KnownMachine(rates).search(*list(rates)[:count]).value for count in range(1, len(rates) + 1)]
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_more_budget_never_lowers_the_ceiling() -> None:
    values = [KnownMachine({A: 100.0, B: 200.0}).search(A, B, budget_s=budget).value for budget in (0.0, 0.5, 2.0, 8.0)]
    assert values == sorted(values)


def test_a_stretch_of_stolen_time_does_not_lower_the_ceiling() -> None:
    quiet = KnownMachine({A: 100.0, B: 200.0}).search(A, B)
    stolen = KnownMachine({A: 100.0, B: 200.0}, speed=lambda now: 0.3 if 4.0 < now < 5.0 else 1.0).search(A, B)
    assert stolen.value == pytest.approx(quiet.value, rel=0.01)


def test_kernels_that_are_screened_in_fast_moments_do_not_crowd_out_a_faster_one() -> None:
    slower = [(name, "nn") for name in "cdefgh"]
    machine = KnownMachine({B: 120.0} | dict.fromkeys(slower, 100.0))
    # The worst case: while cases are screened, the machine is fast whenever it is not the best kernel's turn.
    machine.speed = lambda now: 1.6 if now < BUDGET_S * SCREENING_SHARE and machine.prepared[-1].library != "b" else 1.0
    assert machine.search(B, *slower).case == max(machine.prepared, key=machine.rate)


def test_a_ceiling_and_its_sentinel_belong_to_the_same_state_of_the_machine() -> None:
    # The machine loses half its speed before the pairs: the value stems from before, the pairs from after.
    found = {
        after: KnownMachine({A: 100.0}, speed=lambda now, after=after: 1.0 if now < 5.0 else after).search(A)
        for after in (1.0, 0.5)
    }
    assert found[0.5].value == pytest.approx(found[1.0].value)
    assert found[0.5].sentinel == pytest.approx(found[1.0].sentinel)


def test_a_sentinel_reads_with_torchs_threads_where_another_library_wins() -> None:
    found = KnownMachine({A: 100.0, SERVER: 120.0}).search(A, SERVER)
    assert found.case.library == SERVER[0]
    assert found.sentinel_case.library == "a"
    assert found.sentinel < found.value * 100.0 / 120.0


def test_a_library_that_is_missing_is_passed_over() -> None:
    machine = KnownMachine({B: 200.0})
    assert machine.search(A, B).case.library == "b"


def test_a_kernel_that_fails_only_when_it_runs_is_passed_over() -> None:
    machine = KnownMachine({A: 300.0, B: 200.0})

    def prepare(case: Case) -> Call:
        call = machine.prepare(case)
        return call if case.library == "b" else lambda: 1 / 0

    found = search({"fp32": [A, B]}, prepare, 1.0, machine.clock)
    assert found["fp32"].case.library == "b"


def test_a_rate_that_nothing_measures_is_left_out() -> None:
    machine = KnownMachine({B: 200.0})
    assert set(search({"fp32": [B], "bf16": [A]}, machine.prepare, 1.0, machine.clock)) == {"fp32"}


def test_a_reference_kernel_is_not_tried_at_sizes_that_take_it_seconds() -> None:
    machine = KnownMachine({A: 100.0, B: 0.1})
    machine.search(A, B)
    slow = [case for case in machine.prepared if case.library == "b"]
    assert len(slow) == 1


@pytest.mark.parametrize("budget_s", [1.0, 3.0, 8.0])
def test_the_budget_is_kept_but_for_the_case_at_hand(budget_s: float) -> None:
    rates = {(name, "nn"): 50.0 for name in "abcdefgh"}
    machine = KnownMachine(rates)
    machine.search(*rates, budget_s=budget_s)
    assert machine.now < budget_s + 10 * LONGEST_CALL_S


def test_without_a_budget_every_rate_still_gets_a_window_and_a_few_pairs() -> None:
    machine = KnownMachine({A: 100.0})
    found = search({"fp32": [A], "bf16": [A]}, machine.prepare, 0.0, machine.clock)
    assert set(found) == {"fp32", "bf16"}
    windows = 2 * (1 + FEWEST_PAIRS)
    assert windows * WINDOW_S < machine.now < 2 * windows * WINDOW_S


@pytest.mark.usefixtures("torch_threads")
def test_a_search_of_the_real_machine_gives_every_rate_a_ceiling() -> None:
    found = search_ceilings(threads=1, budget_s=0.2)
    assert tuple(found) == RATES
    for rate, ceiling in found.items():
        assert ceiling.rate == ceiling.case.rate == ceiling.sentinel_case.rate == rate
        assert ceiling.value > 0
        assert ceiling.sentinel > 0
        assert ceiling.searched >= 1
