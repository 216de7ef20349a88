"""Serve the page on this machine alone. No torch here."""

import errno
import secrets
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.extras import install
from dlrun.errors import UserError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

    from dlrun.runs.ui.app import App

PORT = 6007  # beside TensorBoard's 6006
HOST = "127.0.0.1"


def serve(base: Path, port: int | None) -> Iterator[str]:
    """Serve the runs under `base` until Ctrl-C; yield the lines to print.

    port: None takes PORT, or a free one if that is in use. Raises UserError if the port cannot be used, or the packages
    of the extra are not installed.
    """
    if missing := [name for name in ("werkzeug", "plotly") if find_spec(name) is None]:
        raise UserError(
            f"dl-runs ui needs {' and '.join(missing)}, which is not installed\n  expected: {install('ui')}"
        )
    if not base.is_dir():
        raise UserError(f"--output-dir {base}: no such folder\n  expected the folder with the runs")
    from dlrun.runs.ui.app import App

    listening = _listen(port)
    port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    server = _server(App(base, token, port), listening, port)
    here = f"{HOST}:{port}"
    try:
        yield f"http://{here}/?token={token}"
        yield f"  the runs in {base.resolve()}, read only, for this machine alone; Ctrl-C ends it"
        yield f"  from another machine: ssh -L {port}:{here} {socket.gethostname()}, then open this address there"
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        server.server_close()
        listening.close()


def _listen(port: int | None) -> socket.socket:
    """Return a socket that listens. Raises UserError if the port is in use or not allowed."""
    if port is not None and not 0 <= port < 65536:
        raise UserError(f"--port {port}: expected a number from 1 to 65535, or 0 for a free port")
    for wanted in (PORT, 0) if port is None else (port,):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, wanted))
            listening.listen(64)
            return listening
        except OSError as error:
            listening.close()
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
    raise UserError(f"--port {port}: the port {why}\n  expected a free one; --port 0 chooses one")


def _server(app: "App", listening: socket.socket, port: int) -> "BaseWSGIServer":
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    return make_server(HOST, port, app, threaded=True, request_handler=Quiet, fd=listening.fileno())
