"""Runs on a real Ray whose results cannot be written for a while lose nothing: a disk fills up, a bucket stalls."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import s3fs
from buckets import BUCKET, outside, served
from control_suites import PROGRAM, Place, new_place

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

LENGTHS = [8, 12, 16, 20]
METHODS = ["control-null", "control-work"]
BEGUN_S, AWAY_S = 200.0, 4.0

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""With a view of the file systems of its own, in which anybody may mount one in memory."""

FILLED = """
mount -t tmpfs -o size=2m tmpfs "$RESULTS" || exit 99
"$@" > first.txt 2>&1 &
for _ in $(seq 2000); do
    ls "$RESULTS"/measurements/*/*.parquet > parts.txt 2> errors.txt && break
    sleep 0.1
done
cat /dev/zero > "$RESULTS/ballast" 2>> errors.txt
wait $!; echo "code $?" >> first.txt
rm "$RESULTS/ballast"
"$@" > second.txt 2>&1; echo "code $?" >> second.txt
cp -r "$RESULTS" kept
"""
"""Run a command, fill the disk when its first results are there, make room when it has ended, and run it again."""


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as made:
        made.results.mkdir()
        yield made


def _can_mount() -> bool:
    if shutil.which(NAMESPACE[0]) is None:
        return False
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="needs a file system of its own size, which nobody may mount here")
def test_on_a_disk_that_fills_up_a_run_keeps_all_it_measured_and_goes_on_when_there_is_room(place: Place) -> None:
    suite = place.suite(methods=METHODS, lengths=LENGTHS, budget_s=6)
    command = [sys.executable, "-c", PROGRAM, "run", str(suite)]
    script = [*NAMESPACE, "sh", "-c", FILLED, "sh", *command]
    environment = os.environ | place.environment | {"RESULTS": str(place.results)}
    ended = subprocess.run(script, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    first, second = ((place.root / name).read_text() for name in ("first.txt", "second.txt"))
    assert "No space left on device" in first
    assert "the replica that could not be written is kept in" in first
    assert first.endswith("code 1\n")
    assert "continuing unfinished run" in second
    assert second.endswith("code 0\n")
    before = {line.rpartition("/")[2] for line in (place.root / "parts.txt").read_text().split()}
    parts = [part.name for part in (place.root / "kept").glob("measurements/*/[!._]*.parquet")]
    assert before <= set(parts)
    assert len(parts) == len(LENGTHS)


class _Gate:
    """A TCP proxy on loopback that can hold back everything on its way, or refuse it."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.open = threading.Event()
        self.open.set()
        self.refusing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.refusing:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._behind))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while not self.refusing and (content := source.recv(65536)):
                self.open.wait()
                target.sendall(content)

    def close(self) -> None:
        self.open.set()
        self._listening.close()


@contextmanager
def _gated_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Gate, s3fs.S3FileSystem]]:
    """The environment leads to a bucket through a gate; beside it the bucket itself."""
    with served() as environment:
        gate = _Gate(int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        for name, value in (environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"}).items():
            monkeypatch.setenv(name, value)
        yield gate, outside(environment)
        gate.close()


@pytest.mark.parametrize("trouble", ["stalls", "refuses"])
def test_a_bucket_that_is_away_for_some_seconds_is_waited_for(
    trouble: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = place.suite(methods=METHODS, lengths=LENGTHS, budget_s=6)
    parts = f"{BUCKET}/{trouble}/measurements/*/*.parquet"
    with _gated_bucket(monkeypatch) as (gate, bucket):
        running = place.start("run", str(suite), "--results", f"s3://{BUCKET}/{trouble}")
        until = time.monotonic() + BEGUN_S
        while not bucket.glob(parts):
            assert time.monotonic() < until
            assert running.poll() is None, running.communicate()[0]
            time.sleep(0.1)
        gate.refusing = trouble == "refuses"
        if trouble == "stalls":
            gate.open.clear()
        time.sleep(AWAY_S)
        gate.refusing = False
        gate.open.set()
        said, _ = running.communicate(timeout=400)
        assert running.returncode == 0, said
        assert len(bucket.glob(parts)) == len(LENGTHS)
        assert "Traceback" not in said
        assert ("the results can be reached again" in said) >= (trouble == "refuses")
