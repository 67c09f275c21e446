"""Data sets on the Hugging Face hub, read as the Parquet files that it makes of every public one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.errors import RequestError
from tasks.progress import Progress

REVISION = "refs/convert/parquet"
"""The branch on which the hub keeps what it converted, as <configuration>/<split>/<number>.parquet."""

USUAL_SPLITS = ("test", "validation")
"""Where a name leaves the split open, the first of these that there is: never texts that a model is trained on."""

USUAL_CONFIG = "default"
"""What the hub calls the configuration of a data set that names none."""

MOST_NAMED = 12
"""Of the configurations or splits to choose from, an error names so many: some data sets have hundreds."""

_UNCONVERTED = (
    "the hub has made no Parquet files of it, as it does of public data sets; fetch it yourself and name a CSV or "
    "Parquet file"
)
_PREFIX = "hub:"
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(/(?P<config>[^/@*?\[\]]+))?(@(?P<split>[\w.-]+))?")


@dataclass(frozen=True, slots=True)
class HubName:
    """`hub:OWNER/NAME[/CONFIG][@SPLIT]`, taken apart; None for what it leaves open."""

    repository: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        split = f"@{self.split}" if self.split else ""
        return f"{_PREFIX}{self.repository}{config}{split}"


def is_hub_name(name: str) -> bool:
    """Whether `name` means a data set on the hub."""
    return name.startswith(_PREFIX)


def parse_hub_name(name: str) -> HubName:
    """Take a name apart. Raises RequestError where it does not have the form."""
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise RequestError(
            f"dataset {name}: write hub:OWNER/NAME, hub:OWNER/NAME/CONFIG, hub:OWNER/NAME@SPLIT or "
            "hub:OWNER/NAME/CONFIG@SPLIT"
        )
    return HubName(**matched.groupdict())


def choose(wanted: HubName, files: Iterable[str]) -> HubName:
    """Fill in what `wanted` leaves open from the `files` there are, paths of `REVISION`.

    Raises RequestError, naming what there is, where nothing fits or more than one thing does.
    """
    paths = [Path(path).parts for path in files if path.endswith(".parquet")]
    parts = sorted({(path[0], path[1]) for path in paths if len(path) == 3})
    if not parts:
        raise RequestError(f"dataset {wanted}: {_UNCONVERTED}")
    configs = list(dict.fromkeys(config for config, _ in parts))
    config = _one_of(wanted, "configuration", configs, wanted.config, (USUAL_CONFIG,))
    splits = [split for of, split in parts if of == config]
    return HubName(wanted.repository, config, _one_of(wanted, "split", splits, wanted.split, USUAL_SPLITS))


def fetch_parquet(name: str, progress: Progress) -> list[Path]:
    """The Parquet files of one split, from the hub's own cache where they are there; the hub is asked for the rest.

    Raises RequestError, saying what to do, where they cannot be had.
    """
    wanted = parse_hub_name(name)
    progress.step(f"fetch {wanted.repository}", 0, 0)
    # A name that leaves nothing open needs no look at the hub, and so no network once it is fetched.
    chosen = wanted if wanted.config and wanted.split else choose(wanted, _listed(wanted))
    files = _fetched(chosen)
    if not files:
        choose(wanted, _listed(wanted))
        raise RequestError(f"dataset {name}: the hub gave no files of it; try again")
    progress.step(f"fetch {wanted.repository}", 1, 1)
    return files


def _one_of(wanted: HubName, what: str, there: Sequence[str], asked: str | None, usual: Sequence[str]) -> str:
    if asked in there:
        return str(asked)
    choice = [each for each in usual if each in there] or (list(there) if len(there) == 1 else [])
    if asked is None and choice:
        return choice[0]
    named = ", ".join([*there[:MOST_NAMED], *(["..."] if len(there) > MOST_NAMED else [])])
    full = replace(wanted, config=there[0]) if what == "configuration" else replace(wanted, split=there[0])
    trouble = f"has no {what} '{asked}'" if asked else f"has more than one {what}"
    raise RequestError(f"dataset {wanted}: {trouble}; name one of {named}, as in {full}")


def _listed(wanted: HubName) -> list[str]:
    """Paths of all converted files of the data set."""
    from huggingface_hub import HfApi

    try:
        # Not list_repo_files: that tries for 25 s to reach a hub that is not there, and prints each attempt.
        return [file.rfilename for file in HfApi().dataset_info(wanted.repository, revision=REVISION).siblings or ()]
    # The library passes on what the HTTP library below it raises, which differs between its versions.
    except Exception as error:
        raise _refusal(wanted, error) from error


def _fetched(chosen: HubName) -> list[Path]:
    """Local paths of the files of one configuration's split, none where the data set has no such."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    pattern = f"{chosen.config}/{chosen.split}/*.parquet"
    try:
        folder = snapshot_download(chosen.repository, repo_type="dataset", revision=REVISION, allow_patterns=[pattern])
    except Exception as error:
        raise _refusal(chosen, error) from error
    return sorted(Path(folder).glob(pattern))


def _refusal(name: HubName, error: Exception) -> RequestError:
    """The hub's error in the user's words, in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return RequestError(f"dataset {name}: is gated; accept its terms on its page, then run 'hf auth login'")
    if isinstance(error, RevisionNotFoundError):
        return RequestError(f"dataset {name}: {_UNCONVERTED}")
    if isinstance(error, RepositoryNotFoundError):
        return RequestError(
            f"dataset {name}: the Hugging Face hub has no such data set (check the name; run 'hf auth login' for a "
            "private one)"
        )
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    return RequestError(
        f"dataset {name}: the Hugging Face hub did not give it: {first_line} (check the network; what was fetched "
        "before is found without one by its full name, hub:OWNER/NAME/CONFIG@SPLIT; or name a CSV or Parquet file)"
    )
