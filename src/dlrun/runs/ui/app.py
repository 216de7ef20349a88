"""The web application: a page, its data as JSON, images. It only reads. No torch here.

Whoever has the token may read the runs. The browser gets it once, in the address that `dl-runs ui` prints, and keeps it
in a cookie. Requests for another host are refused, since a page of another site may have a name that points here.
"""

import hmac
import json
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from dlrun.errors import UserError
from dlrun.runs.ui import details
from dlrun.runs.ui.catalog import Catalog

STATIC = {"app.js": "text/javascript", "style.css": "text/css", "plotly.min.js": "text/javascript"}
RULES = Map(
    [
        Rule("/", endpoint="index"),
        Rule("/static/<name>", endpoint="static"),
        Rule("/api/runs", endpoint="runs"),
        Rule("/api/curves", endpoint="curves"),
        Rule("/api/configs", endpoint="configs"),
        Rule("/api/images", endpoint="images"),
        Rule("/api/logs", endpoint="logs"),
        Rule("/image/<key>/<path:path>", endpoint="image"),
        Rule("/sweep/<key>", endpoint="sweep"),
    ]
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
# a sweep's page is one file with its script in it; its frame is of no origin, so that it can ask for nothing
SWEEP_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'self'; "
    "sandbox allow-scripts"
)
MOST = 50  # runs whose details one request may ask for


class App:
    """The WSGI application. token: the secret that each request must have. port: the one that it listens on."""

    def __init__(self, base: Path, token: str, port: int) -> None:
        self.catalog, self.token, self.cookie = Catalog(base), token, f"dl-runs-{port}"
        self.hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost")}

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = Response(f"{error.code}: {error.name}\n", error.code, content_type="text/plain; charset=utf-8")
        except UserError as error:
            response = _json({"error": str(error)}, 404)
        for name, value in (
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.host not in self.hosts:
            return _refusal("this page answers to 127.0.0.1 only")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(("GET", "HEAD"))
        token = request.args.get("token")
        if token is not None and self._is_token(token):
            response = Response("", 303, {"Location": "/"})
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="Lax")
            return response
        if token is not None or not self._is_token(request.cookies.get(self.cookie, "")):
            return _refusal("the token is wrong or missing: open the address that dl-runs ui printed")
        endpoint, values = RULES.bind_to_environ(request.environ).match()
        return getattr(self, f"_{endpoint}")(request, **values)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _index(self, request: Request) -> Response:
        return Response(_static("index.html"), content_type="text/html; charset=utf-8")

    def _static(self, request: Request, name: str) -> Response:
        if name not in STATIC:
            raise NotFound
        response = Response(_plotly() if name == "plotly.min.js" else _static(name))
        response.headers["Content-Type"] = f"{STATIC[name]}; charset=utf-8"
        response.headers["Cache-Control"] = "private, no-cache"
        response.add_etag()
        return response.make_conditional(request)

    def _runs(self, request: Request) -> Response:
        return _json(self.catalog.changes(request.args.get("since", 0, int)))

    def _chosen(self, request: Request) -> dict[str, "details.LiveRun"]:
        return {key: self.catalog.run(key) for key in request.args.getlist("run")[:MOST]}

    def _curves(self, request: Request) -> Response:
        return _json({key: details.curves(run) for key, run in self._chosen(request).items()})

    def _configs(self, request: Request) -> Response:
        chosen = self._chosen(request)
        return _json({"runs": list(chosen), **details.configs(list(chosen.values()))})

    def _images(self, request: Request) -> Response:
        return _json({key: details.images(run) for key, run in self._chosen(request).items()})

    def _logs(self, request: Request) -> Response:
        return _json({key: details.log(run) for key, run in self._chosen(request).items()})

    def _image(self, request: Request, key: str, path: str) -> Response:
        content, kind = details.image(self.catalog.run(key), path)
        response = Response(content, content_type=kind)
        response.headers["Cache-Control"] = "private, max-age=3600"  # addresses carry the time of the last change
        return response

    def _sweep(self, request: Request, key: str) -> Response:
        page = details.sweep_page(self.catalog.sweep(key))
        headers = {"Content-Security-Policy": SWEEP_POLICY}
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value, allow_nan=False), status, content_type="application/json")


def _refusal(why: str) -> Response:
    return Response(f"403: {why}\n", 403, content_type="text/plain; charset=utf-8")


def _static(name: str) -> bytes:
    return (Path(__file__).parent / "static" / name).read_bytes()


def _plotly() -> bytes:
    return resources.files("plotly").joinpath("package_data").joinpath("plotly.min.js").read_bytes()
