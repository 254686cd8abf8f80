"""Just enough of an S3 server for its real clients, s3fs and TensorStore.

`python s3_server.py PORT` serves on every interface, which is how a cluster's pods get one.
"""

import hashlib
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlparse
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import pytest

_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
_ISO = "2026-01-01T00:00:00.000Z"


@dataclass
class S3Server:
    """Keeps objects in memory, by bucket and name, like `runs/folder/file`.

    refuses: tells of a method and an object whether to answer with an error; asked from several threads.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    refuses: Callable[[str, str], bool] = lambda method, name: False
    place: tuple[str, int] = ("127.0.0.1", 0)

    def __enter__(self) -> "S3Server":
        outer = self

        class Handler(_Handler):
            store = outer

        self._server = ThreadingHTTPServer(self.place, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def settings(self) -> dict[str, str]:
        """The environment of its clients."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        return keys | {"AWS_ENDPOINT_URL": url}

    def use(self, monkeypatch: "pytest.MonkeyPatch") -> None:
        """Let the clients of this process turn to it."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in self.settings.items():
            monkeypatch.setenv(name, value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: S3Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Answer any method."""
        url = urlparse(self.path)
        name, query = unquote(url.path).lstrip("/"), dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.store.refuses(self.command, name):
            return self._send(403, b"<Error><Code>AccessDenied</Code><Message>refused</Message></Error>")
        if self.command == "PUT" and "/" not in name:
            return self._send(200)  # a bucket, of which there are all
        if self.command == "PUT":
            self.store.objects[name] = body
            return self._send(200, etag=body)
        if self.command == "POST" and "delete" in query:
            return self._delete(name.rstrip("/"), body)
        if self.command == "DELETE":
            self.store.objects.pop(name, None)
            return self._send(204)
        if "list-type" in query:
            return self._list(name.rstrip("/"), query)
        if name not in self.store.objects:
            return self._send(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
        return self._get(self.store.objects[name])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _get(self, content: bytes) -> None:
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = content[int(first or 0) : int(last) + 1 if last else None]
        self._send(206 if first else 200, part, etag=content)

    def _delete(self, bucket: str, body: bytes) -> None:
        for key in ET.fromstring(body).iter():
            if key.tag.endswith("Key"):
                self.store.objects.pop(f"{bucket}/{key.text}", None)
        self._send(200, b"<DeleteResult/>")

    def _list(self, bucket: str, query: dict[str, Any]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        files, folders = [], set()
        for name, content in sorted(self.store.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                folders.add(f"{prefix}{head}{delimiter}")
            else:
                files.append((key, content))
        answer = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_ISO}</LastModified><ETag>{_tag(content)}</ETag>"
            f"<Size>{len(content)}</Size></Contents>"
            for key, content in files
        )
        answer += "".join(f"<CommonPrefixes><Prefix>{escape(x)}</Prefix></CommonPrefixes>" for x in sorted(folders))
        count = len(files) + len(folders)
        head = f"<Name>{bucket}</Name><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
        self._send(200, f"<ListBucketResult>{head}{answer}</ListBucketResult>".encode())

    def _send(self, status: int, content: bytes = b"", etag: bytes | None = None) -> None:
        self.send_response(status)
        if etag is not None:
            self.send_header("ETag", _tag(etag))
            self.send_header("Last-Modified", _DATE)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


if __name__ == "__main__":
    with S3Server(place=("0.0.0.0", int(sys.argv[1]))):
        threading.Event().wait()
