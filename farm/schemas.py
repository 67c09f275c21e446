"""The columns of what is stored, as Arrow schemas: each with its unit and meaning."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from farm.rates import RATES

SCHEMA_VERSION = 1


def _column(name: str, kind: pa.DataType, about: str) -> pa.Field[Any]:
    return pa.field(name, kind, metadata={"description": about})


_IDENTITY = [
    _column("run", pa.string(), "run id: UTC start time and four hex digits"),
    _column("suite", pa.string(), "name of the suite"),
    _column("cohort", pa.string(), "id of the cells compared with one another; stable between runs"),
    _column("cell", pa.string(), "id of method x length x batch size x device x threads; stable between runs"),
    _column("replica", pa.int32(), "number of the cohort's fresh set of processes, from 0"),
    _column("attempt", pa.int32(), "number of the try at this replica, from 1"),
    _column("role", pa.string(), "baseline, twin (a second process of the baseline) or candidate"),
    _column("name", pa.string(), "the method's name in the suite"),
    _column("method", pa.string(), "method id <runtime>-<precision>[-variant]"),
    _column("options", pa.string(), "the method's options, JSON"),
    _column("precision", pa.string(), "precision of the matrix products, as the method declares it"),
    _column("model", pa.string(), "the model the suite named"),
    _column("model_sha256", pa.string(), "hash of the model's files"),
    _column("length", pa.int32(), "tokens per sequence, padding included"),
    _column("batch_size", pa.int32(), "sequences per call"),
    _column("device", pa.string(), "cpu or cuda"),
    _column("threads", pa.int32(), "compute threads the runtime was given"),
    _column("inputs", pa.string(), "full (text fills the length) or padded (texts from short to long, padded to it)"),
    _column(
        "inputs_sha256", pa.string(), "hash of the tokens of the timed inputs; null in results of before it was taken"
    ),
]

_PLACE = [
    _column("node_id", pa.string(), "Ray node id"),
    _column("hostname", pa.string(), "host name of the node"),
    _column("hardware_class", pa.string(), "nodes of the same class are alike: CPU, memory, GPU"),
    _column("cores", pa.list_(pa.int32()), "logical CPUs of the slot"),
    _column("gpu", pa.string(), "GPU model, or null"),
    _column("gpu_uuid", pa.string(), "the one GPU that the cell's process could see"),
    _column(
        "packed",
        pa.bool_(),
        "true if other slots of the machine may have measured at the same time",
    ),
    _column("pid", pa.int32(), "process id of the cell"),
]

_OUTCOME = [
    _column("status", pa.string(), "ok, failed, unsupported or invalid"),
    _column("reasons", pa.list_(pa.string()), "why the status is not ok, or what to know about the row"),
    _column("gate", pa.string(), "pass or fail of the suite's accuracy limit; null where there is none"),
    _column("error_tail", pa.string(), "end of the cell's own error output, where it failed"),
]

_SAMPLES = [
    _column("round", pa.list_(pa.int32()), "round of each sample"),
    _column("latency_ns", pa.list_(pa.int64()), "latency of each sample: token ids on the host to logits on the host"),
    _column(
        *("device_ns", pa.list_(pa.int64())),
        "of each sample, the device's own time of a call by CUDA events, from its first copy to the device to its last "
        "one back, waits for launches included; null on a CPU",
    ),
    _column("tainted", pa.list_(pa.bool_()), "true for samples of a round in which a guard saw a disturbance"),
    _column("calls_per_sample", pa.int32(), "calls averaged into one sample; 1 unless a call is shorter than 1 ms"),
    _column("round_started_unix_ns", pa.list_(pa.int64()), "start of each round"),
    _column("round_position", pa.list_(pa.int32()), "place of the cell in the order of each round, from 0"),
    _column("round_turn_ns", pa.list_(pa.int64()), "wall time of the timed calls of each round"),
    _column("round_rewarm_ns", pa.list_(pa.int64()), "wall time of the discarded calls before them"),
    _column("round_cpu_ns", pa.list_(pa.int64()), "CPU time the cell used in its timed calls of each round"),
]

_GUARDS = [
    _column("round_taint_reasons", pa.list_(pa.list_(pa.string())), "what disturbed each round; empty: nothing seen"),
    _column("round_steal_ratio", pa.list_(pa.float64()), "stolen time during the turn, over slot time"),
    _column("round_foreign_ratio", pa.list_(pa.float64()), "CPU time of others on the slot's cores, over slot time"),
    _column("round_own_ratio", pa.list_(pa.float64()), "the farm's and Ray's own CPU time, over one core's time"),
    _column("round_throttled_ns", pa.list_(pa.int64()), "time the cgroup was throttled during the turn"),
    _column("round_major_faults", pa.list_(pa.int64()), "page faults of the cell that waited for a disk"),
    _column("round_involuntary_switches", pa.list_(pa.int64()), "times a thread of the cell was made to wait"),
    _column("round_run_delay_ns", pa.list_(pa.int64()), "time in which threads of the cell waited for a core"),
    _column("round_pressure_ratio", pa.list_(pa.float64()), "share of the turn in which some thread waited for a core"),
    _column("round_mhz", pa.list_(pa.float64()), "mean frequency of the slot's cores, as the platform reports it"),
    _column("round_wall_ns", pa.list_(pa.int64()), "wall time between the guards' readings around the turn"),
    _column(
        *("round_energy_j", pa.list_(pa.float64())),
        "energy of the machine's packages and memory in that time, whoever used it; null where RAPL cannot be read",
    ),
    _column("round_gpu_foreign", pa.list_(pa.int32()), "processes of others that held the GPU; null: not told"),
    _column("round_gpu_throttle", pa.list_(pa.list_(pa.string())), "what forced the GPU's clock down amid the turn"),
    _column("round_gpu_sm_mhz", pa.list_(pa.float64()), "the GPU's SM clock amid the turn"),
    _column("round_gpu_uncorrected_errors", pa.list_(pa.int64()), "errors of the GPU's memory during the turn"),
    _column("round_gpu_corrected_errors", pa.list_(pa.int64()), "those that its error correction mended"),
    _column("round_gpu_xid_errors", pa.list_(pa.int64()), "errors that the GPU's driver reported (Xid)"),
    _column("round_gpu_energy_j", pa.list_(pa.float64()), "energy of the GPU's board in round_wall_ns (NVML)"),
    _column("round_gpu_temperature_c", pa.list_(pa.float64()), "the GPU's temperature after the turn"),
]

_MACHINE_STATE = [
    _column(
        "round_state", pa.list_(pa.string()), "state of the machine by the sentinel's rates: usual, or which moved"
    ),
    *(_column(rate.column, pa.list_(pa.float64()), f"sentinel: {rate.what}, {rate.unit}") for rate in RATES.values()),
    _column("ceilings", pa.string(), "the machine's best rates, searched once a run, and the sentinel's then, JSON"),
]

_WORK = [
    _column("operations", pa.int64(), "operations of one call's matrix products that the method must make"),
    _column("operations_by_precision", pa.string(), "the same by the precision that the method makes them in, JSON"),
    _column("bytes_read", pa.int64(), "weights and rows of embeddings of one call, in the method's precision"),
]

_PEAK_RSS = (
    "largest resident memory of the cell's process alone, from its start to its end: runtime, model and calls; pages "
    "of the runtime that it shares with its cohort's other cells count in full, as in a process that shares none"
)

_COSTS = [
    _column("prepare_s", pa.float64(), "seconds to make the artifact, when it was made"),
    _column("prepare_steps", pa.string(), "the same by step, JSON; they sum to it"),
    _column("prepare_cached", pa.bool_(), "true if the artifact came from the cache in this run"),
    _column("artifact_key", pa.string(), "hash of everything the artifact depends on"),
    _column(
        "artifact_bytes",
        pa.int64(),
        "size of what loading reads: the artifact's files, the model's weights where it needs them",
    ),
    _column("load_s", pa.float64(), "seconds from artifact to callable, imports excluded"),
    _column("first_call_ns", pa.int64(), "latency of the first call after loading"),
    _column("warmup_calls", pa.int32(), "calls until the latency was steady"),
    _column("steady", pa.bool_(), "false if warm-up reached its cap before the latency settled"),
    _column("peak_rss_bytes", pa.int64(), _PEAK_RSS),
    _column(
        *("vram_bytes", pa.int64()),
        "by how much loading and warming up made the GPU's used memory grow (NVML): CUDA's own share included",
    ),
    _column("allocated_vram_bytes", pa.int64(), "the most that the framework's own allocator gave out on the GPU"),
]

_QUALITY = [
    _column("max_abs_logit_diff", pa.float64(), "largest difference from the baseline's logits on the timed inputs"),
    _column("agreement", pa.float64(), "share of evaluated texts on which it predicts what the baseline predicts"),
    _column("agreement_n", pa.int32(), "texts behind agreement"),
    _column("accuracy", pa.float64(), "share of held-out texts predicted right"),
    _column("accuracy_n", pa.int32(), "texts behind accuracy"),
    _column("baseline_right_only", pa.int32(), "of those, texts that the baseline predicts right and this row wrong"),
    _column("method_right_only", pa.int32(), "of those, texts that this row predicts right and the baseline wrong"),
    _column("max_drop_points", pa.float64(), "largest drop of accuracy that passes the gate, in percentage points"),
]

_EVIDENCE = [
    _column("proof", pa.string(), "evidence of what ran, JSON"),
    _column("environment", pa.string(), "library versions, machine and settings, JSON"),
    _column("schema_version", pa.int32(), "version of this schema"),
]

MEASUREMENT_SCHEMA = pa.schema(
    [*_IDENTITY, *_PLACE, *_OUTCOME, *_SAMPLES, *_GUARDS, *_MACHINE_STATE, *_WORK, *_COSTS, *_QUALITY, *_EVIDENCE]
)
"""One row per cell of one cohort replica, raw samples inside: the truth on disk."""

_STATE = pa.struct(
    [
        _column("state", pa.string(), "the state, as in round_state"),
        _column("rounds", pa.int32(), "rounds in it, over all replicas"),
        _column("speedup", pa.float64(), "speedup over those rounds; null below 5 rounds"),
        _column("low", pa.float64(), "lower end of its 95 % interval"),
        _column("high", pa.float64(), "upper end of its 95 % interval"),
    ]
)

_NODE = pa.struct(
    [
        _column("node", pa.string(), "host name of the node"),
        _column("replicas", pa.int32(), "replicas measured there"),
        _column("speedup", pa.float64(), "speedup over their rounds that count"),
        _column("low", pa.float64(), "lower end of its 95 % interval"),
        _column("high", pa.float64(), "upper end of its 95 % interval"),
    ]
)

SPEEDUP_SCHEMA = pa.schema(
    [
        *[MEASUREMENT_SCHEMA.field(name) for name in ("run", "suite", "hardware_class", "cohort", "cell", "role")],
        *[MEASUREMENT_SCHEMA.field(name) for name in ("name", "method", "precision", "model", "model_sha256")],
        *[MEASUREMENT_SCHEMA.field(name) for name in ("length", "batch_size", "device", "threads", "inputs")],
        *[MEASUREMENT_SCHEMA.field(name) for name in ("status", "reasons", "gate")],
        _column("baseline", pa.string(), "name of the method the speedup is over"),
        _column("replicas", pa.int32(), "replicas behind the row"),
        _column("rounds", pa.int32(), "rounds behind the speedup, over all replicas"),
        _column("rounds_measured", pa.int32(), "rounds measured, those left out of the speedup included"),
        _column("rounds_tainted", pa.int32(), "rounds in which a guard saw a disturbance, over all replicas"),
        _column("taint_reasons", pa.list_(pa.string()), "what disturbed those rounds, most frequent first"),
        _column("samples", pa.int32(), "timed samples behind the row"),
        _column("latency_p50_ns", pa.float64(), "median latency over the samples of the rounds behind the row"),
        _column("latency_p90_ns", pa.float64(), "90th percentile; null below the 64 samples that support it"),
        _column("latency_p95_ns", pa.float64(), "95th percentile; null below the 130 samples that support it"),
        _column("latency_p99_ns", pa.float64(), "99th percentile; null below the 662 samples that support it"),
        _column(
            *("device_p50_ns", pa.float64()),
            "median of the device's own time of a call over those samples; the rest of the latency is the host's",
        ),
        _column("baseline_p50_ns", pa.float64(), "median latency of the baseline over its samples of those rounds"),
        _column("speedup", pa.float64(), "baseline latency / latency: geometric mean of the paired per-round ratios"),
        _column("speedup_low", pa.float64(), "lower end of the 95 % interval"),
        _column("speedup_high", pa.float64(), "upper end of the 95 % interval"),
        _column("interval", pa.string(), "how the interval was made: replicas, two-stage, one-replica or one-round"),
        _column("pilot", pa.int32(), "replicas of Stein's first stage: the interval rests on how those differ"),
        _column("resolved", pa.bool_(), "whether the interval's half-width is within what the effort aims at"),
        _column("speedup_all_rounds", pa.float64(), "speedup over disturbed rounds too; null where none was left out"),
        _column("states", pa.list_(_STATE), "speedup per state of the machine, where there are two states or more"),
        _column("nodes", pa.list_(_NODE), "speedup per node before pooling, where replicas were spread over several"),
        MEASUREMENT_SCHEMA.field("packed"),
        _column("bootstrap_low", pa.float64(), "lower end by a studentized bootstrap; null below 8 replicas"),
        _column("bootstrap_high", pa.float64(), "upper end by a studentized bootstrap; null below 8 replicas"),
        _column("bootstrap_agrees", pa.bool_(), "whether the bootstrap supports the interval"),
        _column("log_ratios", pa.list_(pa.list_(pa.float64())), "log(baseline / method) of each round, per replica"),
        _column("verdict", pa.string(), "faster, slower, same or unclear; null for the baseline and for rows not ok"),
        _column("p_value", pa.float64(), "two-sided p value of speedup = 1; below 0.05 where the interval excludes 1"),
        _column(
            "p_holm", pa.float64(), "the same, adjusted by Holm for all claims of the table (candidates of the run)"
        ),
        _column("accuracy", pa.float64(), "share of held-out texts predicted right"),
        _column("accuracy_n", pa.int32(), "texts behind accuracy"),
        _column("accuracy_low", pa.float64(), "lower end of its 95 % interval (Wilson)"),
        _column("accuracy_high", pa.float64(), "upper end of its 95 % interval (Wilson)"),
        _column("accuracy_drop_points", pa.float64(), "baseline's accuracy less this row's, in percentage points"),
        _column("accuracy_drop_low_points", pa.float64(), "lower end of its paired 95 % interval (Tango's score)"),
        _column("accuracy_drop_high_points", pa.float64(), "upper end of its paired 95 % interval (Tango's score)"),
        _column("mcnemar_p", pa.float64(), "two-sided p value of no change in accuracy: McNemar's exact test"),
        *[MEASUREMENT_SCHEMA.field(name) for name in ("baseline_right_only", "method_right_only", "max_drop_points")],
        _column("agreement", pa.float64(), "share of evaluated texts on which it predicts what the baseline predicts"),
        _column("max_abs_logit_diff", pa.float64(), "largest logit difference from the baseline over replicas"),
        _column(
            "artifact_bytes",
            pa.int64(),
            "size of what loading reads: the artifact's files, the model's weights where it needs them",
        ),
        MEASUREMENT_SCHEMA.field("artifact_key"),
        _column("prepare_s", pa.float64(), "seconds to make the artifact"),
        MEASUREMENT_SCHEMA.field("prepare_steps"),
        _column("load_s", pa.float64(), "median seconds to load it"),
        _column("first_call_ns", pa.float64(), "median latency of the first call"),
        _column("warmup_calls", pa.float64(), "median number of calls until the latency was steady"),
        _column("peak_rss_bytes", pa.int64(), f"largest over replicas: {_PEAK_RSS}"),
        _column(
            "cpu_ns_per_call", pa.float64(), "CPU time of a call in all threads, median over the rounds that count"
        ),
        _column(
            *("energy_j_per_call", pa.float64()),
            "energy of the machine's packages and memory during a call, whoever used it, median over those rounds; "
            "null where RAPL cannot be read",
        ),
        _column("vram_bytes", pa.int64(), "largest over replicas: what loading it took of the GPU's memory (NVML)"),
        _column("allocated_vram_bytes", pa.int64(), "largest over replicas: what its framework gave out of that"),
        _column(
            *("gpu_energy_j_per_call", pa.float64()),
            "energy of the GPU's board over the rounds that count, shared out to their calls by time; null where they "
            "last less than a second altogether, and where NVML does not tell",
        ),
        _column("gpu_power_w", pa.float64(), "mean power of the GPU's board in those rounds"),
        _column("gpu_sm_mhz", pa.float64(), "median SM clock of the GPU in those rounds"),
        _column("unread", pa.list_(pa.string()), "what the guards watch of a GPU and its driver does not tell here"),
        _column(
            *("break_even_calls", pa.int64()),
            "calls after which preparing and loading it, less the baseline's, are won back; null if it is not faster",
        ),
        MEASUREMENT_SCHEMA.field("operations"),
        _column(
            *("limit_ns", pa.float64()),
            "least time that the machine allows a call by the sentinel's rates, median over the rounds that count: "
            "each product's operations over its precision's rate, or bytes over bandwidth if larger",
        ),
        _column(
            *("limit_fraction", pa.float64()),
            "share of that limit reached: limit of a round / its turn's median latency, median over those rounds; "
            "above 1 is a mistake of the farm or the method",
        ),
    ]
)
"""One row per cell of one run, derived from its measurements."""

RUN_SCHEMA = pa.schema(
    [
        _column("run", pa.string(), "run id: UTC start time and four hex digits"),
        _column("created", pa.timestamp("us", "UTC"), "when the run was recorded"),
        _column("finished", pa.timestamp("us", "UTC"), "when it was finished; null while it is not"),
        _column("suite", pa.string(), "name of the suite"),
        _column("model", pa.string(), "name of the model"),
        _column("farm_version", pa.string(), "version of the farm"),
        _column("command", pa.string(), "the command that made it"),
        _column("request_sha256", pa.string(), "hash of suite, model, hardware class and library versions"),
        _column("settings", pa.string(), "the resolved suite, JSON"),
        _column("environment", pa.string(), "library versions and machine, JSON"),
    ]
)
"""One row per run, as a query tells it of the run's record."""
