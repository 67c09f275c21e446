"""A hub of data sets on this machine: what huggingface_hub asks of the real one, answered from memory."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "c0ffee" + 34 * "0"

Files = Mapping[str, bytes]


def parquet(texts: list[str], labels: list[Any], names: list[str] | None = None, **columns: str) -> bytes:
    """A converted file with columns `text` and `label` (or others, named by these), and what its labels are called."""
    text, label = columns.get("text", "text"), columns.get("label", "label")
    table = pa.Table.from_pandas(pd.DataFrame({text: texts, label: labels}))
    if names:
        features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@contextmanager
def fake_hub(datasets: Mapping[str, Files], refusals: Mapping[str, str]) -> Iterator[str]:
    """Serve the converted files of `datasets`, and refuse some with the hub's error codes; the address to ask."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, with_body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            parts = parts[1:] if parts[0] == "api" else parts
            name = "/".join(parts[1:3])
            content = None if name in refusals else _content(datasets.get(name), name, parts[3], parts[5:])
            code = refusals.get(name, "RepoNotFound" if name not in datasets else "EntryNotFound")
            self.send_response(404 if content is None else 200)
            body = b"" if content is None else content
            for header, value in {
                "Content-Length": str(len(body)),
                "Content-Type": "application/json" if parts[3] != "resolve" else "application/octet-stream",
                "ETag": f'"{abs(hash(body)):040x}"',
                "X-Repo-Commit": COMMIT,
                **({"X-Error-Code": code} if content is None else {}),
            }.items():
                self.send_header(header, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _content(files: Files | None, name: str, what: str, rest: list[str]) -> bytes | None:
    """The body of an answer, or None where there is nothing to give."""
    if files is None:
        return None
    if what == "resolve":
        return files.get("/".join(rest))
    if what == "revision":
        return json.dumps({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}).encode()
    entries = [{"type": "file", "path": path, "size": len(body), "oid": 40 * "0"} for path, body in files.items()]
    return json.dumps(entries).encode()
