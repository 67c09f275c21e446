"""The suite: a YAML file that says what to measure. Its schema, loading and validation."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from farm.errors import RequestError
from farm.records import Device
from tasks.method import explain_unknown, find_method, is_known, resolve_alias

FOUNDING = "founding"

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    """Unknown keys are mistakes, and a loaded suite does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodChoice(Strict):
    """One row of the suite: a method, the name it goes by in tables, and its options."""

    method: str
    name: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named(self) -> MethodChoice:
        if not is_known(self.method):
            raise ValueError(explain_unknown(self.method))
        if not self.name:
            object.__setattr__(self, "name", self.method)
        return self

    def method_id(self, device: Device) -> str:
        """The id of the method this row means on `device`."""
        return resolve_alias(self.method, device)


class Accuracy(Strict):
    """The labelled texts that methods are held to, and how many percentage points they may lose on them.

    `dataset`: demo, a CSV or Parquet file, or hub:OWNER/NAME[/CONFIG][@SPLIT]. `max_texts` judges on a fixed random
    sample of so many where there are more.
    """

    dataset: str = "demo"
    text_column: Annotated[str, Field(min_length=1)] = "text"
    label_column: Annotated[str, Field(min_length=1)] = "label"
    max_texts: PositiveInt | None = None
    max_drop_points: Annotated[float, Field(ge=0)] | None = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be taken: seconds for each step, and bytes of memory of a cell's own on a CPU.

    `call_s` None: 20 times the baseline's call, at least 10 s. `memory_bytes` None: 70 % of the slot's memory. `node_s`
    is how long the run waits for a node that it can measure on to be up before it gives up; one that others hold is
    waited for without a limit.
    """

    load_s: PositiveFloat = 120.0
    call_s: PositiveFloat | None = None
    prepare_s: PositiveFloat = 1800.0
    memory_bytes: PositiveInt | None = None
    node_s: PositiveFloat = 600.0


class Suite(Strict):
    """What to measure. Every key has a default but `methods`."""

    name: str = "unnamed"
    model: str = "demo"
    baseline: str = ""
    methods: Annotated[tuple[MethodChoice, ...], Field(min_length=1)]
    compare: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Groups of methods that are compared directly too, each with the first of its group: they stand in one pack."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=4)], ...], Field(min_length=1)] = (64, 128, 256, 512)
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    devices: Annotated[tuple[Literal["auto", "cpu", "cuda"], ...], Field(min_length=1)] = ("auto",)
    threads: Annotated[tuple[Literal["auto"] | PositiveInt, ...], Field(min_length=1)] = ("auto",)
    smt: Literal["idle", "use"] = "idle"
    inputs: Literal["full", "padded"] = "full"
    sentinels: bool = True
    order: Literal["interleaved", "blocked"] = "interleaved"
    """`blocked` takes all turns of one cell, then all of the next, as most benchmarks do: to see what rounds save."""
    accuracy: Accuracy | None = Accuracy()
    effort: Literal["quick", "standard", "rigorous"] = "quick"
    budget_s: PositiveFloat | None = None
    same_within: Annotated[float, Field(gt=0, lt=1)] | None = None
    limits: Limits = Limits()
    hardware: Annotated[str, Field(min_length=1)] = "any"
    """`any`: the class that has most slots; `all`: every class; KEY=VALUE: every class of the nodes with that label;
    else the name of a class or of one node."""
    nodes: PositiveInt = 1
    """How many nodes to ask the cluster's autoscaler for, where fewer that fit are up."""
    exclusive: Literal["node", "slot"] = "node"
    """Whether a cohort has the whole node, or only its slot, beside cohorts on the node's other slots."""

    @field_validator("lengths", "batch_sizes", "threads", "devices")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"{list(values)} names something twice")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        names = [choice.name for choice in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"methods: '{twice[0]}' stands there twice; give one of them a `name:` of its own")
        if not self.baseline:
            object.__setattr__(self, "baseline", names[0])
        if self.baseline not in names:
            near = difflib.get_close_matches(self.baseline, names, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"baseline: '{self.baseline}' is not one of the methods ({', '.join(names)}).{hint}")
        for name in (name for group in self.compare for name in group):
            if name not in names:
                raise ValueError(f"compare: '{name}' is not one of the methods ({', '.join(names)})")
            if name == self.baseline:
                raise ValueError(f"compare: '{name}' is the baseline, with which all methods are compared anyway")
        for choice in self.methods:
            _check_options(choice)
        return self

    @property
    def baseline_choice(self) -> MethodChoice:
        """The method that all others are compared with."""
        return next(choice for choice in self.methods if choice.name == self.baseline)

    def resolved(self) -> dict[str, Any]:
        """The whole suite as plain data, defaults filled in."""
        return self.model_dump(mode="json")


def request_sha256(
    suite: Suite,
    model_sha256: str,
    hardware_classes: Sequence[str],
    versions: Mapping[str, str],
    texts_sha256: str | None = None,
) -> str:
    """Hash of everything that makes two runs the same request: continuing one must not mix different ones.

    `texts_sha256` is that of the labelled texts: a file of them may change under its name.
    """
    identity = [suite.resolved(), model_sha256, sorted(hardware_classes), dict(versions), texts_sha256]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def load_suite(source: str | None, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Load a suite: a YAML file, the name of a built-in suite, or (None) the founding experiment.

    `overrides` replace top-level keys; a dotted key reaches into one (`limits.load_s`). Overriding methods picks from
    the suite's own rows by name, options included, and keeps its baseline.
    Raises RequestError with one line for each mistake, naming file and key.
    """
    label, data = _read(source or FOUNDING)
    own = data.get("methods")
    for key, value in (overrides or {}).items():
        _put(data, key, value)
    if overrides and "methods" in overrides and isinstance(own, list) and isinstance(data["methods"], list):
        data["methods"] = _pick(own, data["methods"], data.get("baseline"))
    return parse_suite(data, label)


def parse_suite(data: Mapping[str, Any], label: str = "suite") -> Suite:
    """Validate a suite given as plain data. Raises RequestError; `label` begins each of its lines."""
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        mistakes = dict.fromkeys(_explain(item) for item in _root_causes(error.errors()))
        raise RequestError("\n".join(f"{label}: {mistake}" for mistake in mistakes)) from None


def built_in_suites() -> list[str]:
    """Names of the suites that come with the farm."""
    return sorted(item.name.removesuffix(".yaml") for item in (files("farm") / "suites").iterdir())


def _read(source: str) -> tuple[str, dict[str, Any]]:
    if source in built_in_suites():
        label, text = source, (files("farm") / "suites" / f"{source}.yaml").read_text()
    else:
        path = Path(source)
        label = path.name
        try:
            text = path.read_text()
        except OSError as error:
            known = ", ".join(built_in_suites())
            reason = error.strerror or "cannot be read"
            raise RequestError(f"{source}: {reason}. Give a YAML file or a built-in suite ({known})") from None
        except UnicodeDecodeError:
            raise RequestError(f"{source}: is not a text file. Give a YAML file") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"{label}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise RequestError(f"{label}: a suite is a mapping of keys such as `methods:` and `lengths:`")
    return label, data


def _put(data: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        inner = data.get(key)
        data[key] = dict(inner) if isinstance(inner, dict) else {}
        data = data[key]
    data[last] = value


def _pick(own: Sequence[Any], wanted: Sequence[Any], baseline: Any) -> list[Any]:
    """The wanted methods as the suite's own rows where it has them; its baseline (else its first row) comes along."""
    rows = {_row_name(row): row for row in own}
    picked = [rows.get(_row_name(row), row) if isinstance(row, str) else row for row in wanted]
    first = str(baseline or next(iter(rows), ""))
    missing = first in rows and first not in map(_row_name, picked)
    return [rows[first], *picked] if missing else picked


def _row_name(row: Any) -> str:
    return str(row.get("name") or row.get("method")) if isinstance(row, dict) else str(row)


def _check_options(choice: MethodChoice) -> None:
    """Validate a method's options against what it declares. Raises ValueError naming the row and the option."""
    for device in ("cpu", "cuda"):
        options_class = find_method(choice.method_id(device)).Options
        known = [field.name for field in fields(options_class)]
        unknown = sorted(set(choice.options) - set(known))
        if unknown:
            offer = f"it knows {', '.join(known)}" if known else "it has none"
            raise ValueError(f"methods: '{choice.name}' has no option '{unknown[0]}' ({offer})")
        try:
            # Strictly, as the method is given what stands there: the text "false" would be true to it. And as JSON,
            # for of Python's own objects a strict check takes only the dataclass itself.
            TypeAdapter(options_class).validate_json(json.dumps(choice.options, default=str), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"methods: '{choice.name}': option {where}: {first['msg']}") from None


def _root_causes(items: Sequence[Any]) -> list[Any]:
    """Drop what only follows from a mistake further inside: a list whose one bad entry leaves it empty."""
    places = [item["loc"] for item in items]
    return [
        item
        for item in items
        if not any(len(p) > len(item["loc"]) and p[: len(item["loc"])] == item["loc"] for p in places)
    ]


def _keys_at(place: Sequence[str | int]) -> list[str]:
    """The keys that may stand at a place of a suite."""
    structure: Any = Suite
    for key in place:
        if isinstance(key, str):
            structure = _structure(get_type_hints(structure)[key])
    return list(getattr(structure, "model_fields", None) or (field.name for field in fields(structure)))


def _structure(kind: Any) -> Any:
    """The model or dataclass that values of this type are, or consist of."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        return kind
    return next(filter(None, map(_structure, get_args(kind))), None)


def _explain(item: Any) -> str:
    """One mistake in the user's words: where, what, and what to do."""
    if item["loc"][:1] == ("threads",) and len(item["loc"]) > 1:
        return f"threads[{item['loc'][1]}]: give 'auto' or a positive whole number"
    where = ""
    for part in item["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else f" Known keys: {', '.join(known)}"
        return f"unknown key '{where}'.{hint}"
    message = item["msg"].removeprefix("Value error, ").replace("Tuple", "List").replace("tuple", "list")
    return f"{where}: {message}" if where else message
