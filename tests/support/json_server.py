"""A JSON server on the loopback interface, for fakes of web services."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlparse


@dataclass(frozen=True)
class Request:
    """One request; `body` is None where it was not JSON."""

    method: str
    path: str
    query: dict[str, str]
    body: Any = None


Answer = tuple[int, Any]


@dataclass
class JsonServer:
    """Answer each request with what `route` returns: a status and a JSON value (a str is sent as text)."""

    route: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "JsonServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def answer(self) -> None:
                """Answer any method."""
                url = urlparse(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_json = raw and "json" in self.headers.get("Content-Type", "")
                request = Request(
                    self.command, url.path, dict(parse_qsl(url.query)), json.loads(raw) if is_json else None
                )
                outer.requests.append(request)
                status, value = outer.route(request)
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"http://127.0.0.1:{self._server.server_port}"
