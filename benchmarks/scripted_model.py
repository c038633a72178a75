"""A scripted model behind OpenAI's chat completions: two terminal commands, then done.

python -m benchmarks.scripted_model      prints its port and serves until it is ended
"""

import http.server
import json
import socketserver
from typing import Any

TURNS: tuple[dict[str, Any], ...] = (
    {"commands": [{"keystrokes": "cd /app\n", "duration": 0.1}]},
    {"commands": [{"keystrokes": "echo 'Hello, world!' >hello.txt\n", "duration": 0.1}]},
    {"commands": [], "task_complete": True},
)


class Model(http.server.BaseHTTPRequestHandler):
    """Answers by how often it was answered already in the same conversation, so any number can go on at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = sum(message["role"] == "assistant" for message in request["messages"])
        turn = {"analysis": "a", "plan": "p", **TURNS[min(said, len(TURNS) - 1)]}
        message = {"role": "assistant", "content": json.dumps(turn)}
        answer = {
            "id": "scripted",
            "object": "chat.completion",
            "created": 1,
            "model": request.get("model", "scripted"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        """Say nothing: the log would be a line per turn."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    with Server(("127.0.0.1", 0), Model) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
