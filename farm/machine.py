"""What a node is made of: CPU, memory, GPUs, and the hardware class that like nodes share."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import socket
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from farm.gpus import find_gpus, visible_to_cuda
from farm.records import Machine
from tasks.instruction_sets import cpu_flags, cpuinfo

GIB = 1024**3

INSTRUCTION_SETS = (
    *("sse4_1", "avx", "f16c", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""The flags that decide which matrix kernels a runtime can use; the others do not tell machines apart."""


def describe_machine() -> Machine:
    """Describe the machine this process runs on; asked once in a process."""
    return _describe()


@functools.cache
def _describe() -> Machine:
    usable = tuple(sorted(_usable_cpus()))
    siblings = _smt_siblings(usable)
    gpus, no_gpu = find_gpus(visible=visible_to_cuda())
    numa_nodes = _numa_nodes(usable)
    facts = {
        "cpu_model": _cpu_model(),
        "sockets": _sockets(usable),
        "physical_cores": len(siblings),
        "logical_cpus": len(usable),
        "memory_bytes": _memory_bytes(),
        "instruction_sets": _instruction_sets(),
        "gpus": tuple(gpu.name for gpu in gpus),
    }
    return Machine(
        hostname=socket.gethostname(),
        system=f"{platform.system()} {platform.release()}",
        usable_cpus=usable,
        smt_siblings=siblings,
        gpu_devices=gpus,
        no_gpu=no_gpu,
        numa_nodes=numa_nodes,
        software={"python": platform.python_version(), "platform": platform.platform(), **library_versions()},
        hardware_class=_hardware_class(facts | ({"numa_nodes": len(numa_nodes)} if len(numa_nodes) > 1 else {})),
        **facts,  # type: ignore[arg-type]
    )


def _usable_cpus() -> set[int]:
    """The logical CPUs this process may run on: the affinity mask, cut to the cgroup's quota where one is set."""
    cpus = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    quota = _cgroup_cpus()
    if quota is not None and quota < len(cpus):
        cpus = set(sorted(cpus)[: max(1, int(quota))])
    return cpus


def _cgroup_cpus() -> float | None:
    """CPUs that the cgroup's bandwidth quota amounts to (cgroup v2 `cpu.max`), or None without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _smt_siblings(cpus: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Group logical CPUs by physical core, as the kernel reports it; a virtual machine may hide the truth."""
    groups: set[tuple[int, ...]] = set()
    for cpu in cpus:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings = _parse_cpu_list(path.read_text())
        except OSError:
            siblings = {cpu}
        groups.add(tuple(sorted(siblings & set(cpus))))
    return tuple(sorted(groups))


def _numa_nodes(cpus: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The usable CPUs of each NUMA node that has any, in the kernel's order."""
    folders = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    lists = [path for folder in folders if (path := folder / "cpulist").is_file()]
    near = [tuple(sorted(_parse_cpu_list(path.read_text()) & set(cpus))) for path in lists]
    return tuple(each for each in near if each)


def _parse_cpu_list(text: str) -> set[int]:
    """Parse the kernel's list format, such as `0-3,8`."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _sockets(cpus: tuple[int, ...]) -> int:
    packages = set()
    for cpu in cpus:
        try:
            packages.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id").read_text().strip())
        except OSError:
            return 1
    return len(packages)


def _cpu_model() -> str:
    return cpuinfo("model name") or platform.processor() or platform.machine()


def _instruction_sets() -> tuple[str, ...]:
    present = cpu_flags()
    return tuple(flag for flag in INSTRUCTION_SETS if flag in present)


def _memory_bytes() -> int:
    total = psutil.virtual_memory().total
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total
    return min(total, limit)


def _hardware_class(facts: dict[str, object]) -> str:
    """Name the class: readable, with a hash of everything that must agree for two nodes to be alike.

    Memory is rounded to 4 GiB: two virtual machines of one type report slightly different totals.
    """
    memory_gib = round(int(str(facts["memory_bytes"])) / GIB / 4) * 4 or 1
    identity = repr([facts[key] for key in sorted(facts) if key != "memory_bytes"] + [memory_gib])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    model = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*$", "", str(facts["cpu_model"]))
    slug = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-").lower()
    gpus = facts["gpus"]
    gpu = f"-{len(gpus)}gpu" if isinstance(gpus, tuple) and gpus else ""
    return f"{slug}-{facts['logical_cpus']}cpu-{memory_gib}gib{gpu}-{digest}"


DISTRIBUTIONS = (
    *("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "onnx", "ray", "numpy", "tokenizers"),
    *("openvino", "nncf", "torchao", "triton", "tensorrt", "cuda-bindings"),
)


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide how fast a method is; those not installed are left out."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def describe_environment(machine: Machine | None = None) -> dict[str, Any]:
    """What a result that was measured there needs to be reproduced: Python, libraries, machine; of this one if None."""
    facts = asdict(machine or describe_machine())
    libraries = facts.pop("software")
    own = {name: libraries.pop(name, None) for name in ("python", "platform")}
    return {**own, "libraries": libraries, "machine": facts}


def kind_of_software(machine: Machine) -> tuple[object, ...]:
    """What machines of one hardware class with the same libraries have in common; their kernels may differ."""
    libraries = {**machine.software, "platform": ""}
    return machine.hardware_class, *sorted(libraries.items())


def unlike(there: Machine, others: Machine) -> str:
    """How the libraries of a machine differ from those of others, in words; nothing where they do not."""
    here, known = ({**machine.software, "platform": ""} for machine in (there, others))
    return ", ".join(
        f"{name} {here.get(name, 'none')} instead of {known.get(name, 'none')}"
        for name in sorted(here.keys() | known.keys())
        if here.get(name) != known.get(name)
    )
