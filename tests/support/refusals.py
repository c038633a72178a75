"""What providers answer when they refuse, from ``data/refusals.json``, served on the loopback and asked for through litellm.

python refusals.py serve      prints its port; answers POST /N/… with case N until it is killed
python refusals.py litellm    asks every case of terminus-2 once; prints what each raised, a JSON line per case
"""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "refusals.json").read_text())
KEY = "key-of-nobody"


def name_of(case: dict[str, Any]) -> str:
    return f"{case['through']}: {case['provider']}, {case['refusal']}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # Codex asks for a WebSocket first; this answer has it ask by HTTP at once.
        self._send(426, b"", {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        case = CASES[int(self.path.split("/")[1])]
        body = case["body"]
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        # OpenAI's client would ask again by itself.
        self._send(case["status"], data, {"x-should-retry": "false", **case.get("headers", {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


def server() -> http.server.ThreadingHTTPServer:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of a server in a process of its own, because processes under test fork."""
    process = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def base_of(case: dict[str, Any], url: str) -> str:
    """The base address at which litellm finds a case."""
    own = case["model"].partition("/")[0]
    path = "" if own in ("gemini", "anthropic", "azure") else "/v1"
    return f"{url}/{CASES.index(case)}{path}"


def ask(case: dict[str, Any], url: str) -> dict[str, Any]:
    """What litellm raises for a case."""
    import litellm

    version = {"api_version": "2024-06-01"} if case["model"].startswith("azure/") else {}
    try:
        litellm.completion(
            model=case["model"],
            messages=[{"role": "user", "content": "hi"}],
            api_key=KEY,
            api_base=base_of(case, url),
            num_retries=0,
            max_retries=0,
            **version,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is is told
        told = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        return {"case": name_of(case), **told}
    return {"case": name_of(case), "type": None}


def main() -> None:
    made = server()
    port = made.server_address[1]
    if sys.argv[1] == "serve":
        print(port, flush=True)
        threading.Event().wait()
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    warnings.simplefilter("ignore")
    for case in CASES:
        if case["through"] == "terminus-2":
            print(json.dumps(ask(case, f"http://127.0.0.1:{port}")), flush=True)


if __name__ == "__main__":
    main()
