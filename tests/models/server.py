"""A model that says what a script says, over three APIs: OpenAI's Responses (Codex) and chat completions, Anthropic's Messages.

    python server.py SCRIPT.json REQUESTS.jsonl      prints its port and serves until it is killed

The script is an object: part of a prompt → turns. The rule that fits is the one whose text is in the newest prompt,
else in the one before …; the empty text fits any. Of its turns the conversation gets the one after as many answers
as there have been since that prompt, the last one again when they are used up. A turn is one of

    {"say": TEXT}   {"json": DOCUMENT}   {"run": SHELL COMMAND}   {"status": 429, "message": …, "headers": {…}}
    {"cut": true}   {"endless": true}    {"hang": true}

and may have ``after_sec`` (wait first) or ``after_file`` (wait until this file is there), ``tokens: [input, output]``, and
``times``: it stands before the others and is used up after so many requests, whatever the conversation. One with ``after``
and ``until_file`` stands before the others once there have been so many requests, until that file is there.
"""

import http.server
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

_lock = threading.Lock()
_ids = itertools.count(1)


class Heard(NamedTuple):
    """A conversation, whatever the API."""

    prompts: list[str]
    """What the user said, oldest first."""
    answers: list[int]
    """How often the model has answered since each of them."""


def heard(path: str, body: dict[str, Any]) -> Heard:
    prompts: list[str] = []
    answers: list[int] = []
    for item in body.get("input", body.get("messages", [])):
        role, content = item.get("role"), item.get("content")
        if item.get("type") == "function_call" or role == "assistant":
            answers = [count + 1 for count in answers]
        elif role == "user" and not _is_tool_result(content):
            prompts.append(_text(content))
            answers.append(0)
    return Heard(prompts, answers)


def _is_tool_result(content: Any) -> bool:
    return isinstance(content, list) and any(p.get("type") == "tool_result" for p in content)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or [])


class Script:
    """The rules, and how often those turns were used that may be used so often only."""

    def __init__(self, path: Path) -> None:
        self.rules: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())

    def turn(self, conversation: Heard) -> dict[str, Any]:
        prompts, answers = conversation
        for prompt, answered in zip(reversed(prompts), reversed(answers), strict=True):
            for text, turns in self.rules.items():
                if text and text in prompt:
                    return self._pick(turns, answered)
        return self._pick(self.rules[""], answers[-1] if answers else 0)

    def _pick(self, turns: list[dict[str, Any]], answered: int) -> dict[str, Any]:
        with _lock:
            for turn in turns:
                if turn.get("times", 0) > 0:
                    turn["times"] -= 1
                    return turn
                if turn.get("after", 0) > 0:
                    turn["after"] -= 1
                elif "after" in turn and not Path(turn["until_file"]).exists():
                    return turn
        usual = [turn for turn in turns if not {"times", "after"} & turn.keys()]
        return usual[min(answered, len(usual) - 1)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script
    log: Path

    def do_GET(self) -> None:
        self._json(404, {"error": {"message": "nothing here"}})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = self.path.partition("?")[0]
        line = {"path": path, "headers": dict(self.headers), "body": body, "at": time.time()}
        with _lock, self.log.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if path.endswith("count_tokens"):
            self._json(200, {"input_tokens": 10})
            return
        turn = self.script.turn(heard(path, body))
        time.sleep(turn.get("after_sec", 0))
        while "after_file" in turn and not Path(turn["after_file"]).exists():
            time.sleep(0.02)
        if "status" in turn:
            self._refuse(turn, path)
        elif turn.get("hang"):
            time.sleep(3600)
        elif path.endswith("/responses"):
            self._responses(turn)
        elif path.endswith("/messages"):
            self._messages(turn, body)
        else:
            self._chat(turn, body)

    def _refuse(self, turn: dict[str, Any], path: str) -> None:
        message = turn.get("message") or f"scripted {turn['status']}"
        kind = turn.get("type") or _ERROR_TYPES.get(turn["status"], "api_error")
        error: dict[str, Any] = {"type": kind, "message": message}
        if not path.endswith("/messages"):
            error["code"] = turn.get("code", kind)
        self._json(turn["status"], {"type": "error", "error": error}, turn.get("headers", {}))

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # --- streams --------------------------------------------------------------------------------------

    def _stream(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def _event(self, kind: str, **fields: Any) -> None:
        self._data(f"event: {kind}\n", {"type": kind, **fields})

    def _data(self, head: str, document: Any) -> None:
        self.wfile.write(f"{head}data: {json.dumps(document)}\n\n".encode())
        self.wfile.flush()

    def _responses(self, turn: dict[str, Any]) -> None:
        number = next(_ids)
        response: dict[str, Any] = {"id": f"resp_{number}", "object": "response"}
        item: dict[str, Any] = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
        self._stream()
        self._event("response.created", response={**response, "status": "in_progress"})
        if "run" in turn:
            arguments = json.dumps({"cmd": turn["run"]})
            item = {
                "id": f"fc_{number}",
                "type": "function_call",
                "name": "exec_command",
                "arguments": arguments,
                "call_id": f"call_{number}",
            }
            self._event("response.output_item.added", output_index=0, item=item)
        else:
            opened = {**item, "status": "in_progress", "content": []}
            self._event("response.output_item.added", output_index=0, item=opened)
            for part in _parts(turn):
                self._event(
                    "response.output_text.delta", item_id=item["id"], output_index=0, content_index=0, delta=part
                )
            if turn.get("cut"):
                return
            item |= {
                "status": "completed",
                "content": [{"type": "output_text", "text": _said(turn), "annotations": []}],
            }
        self._event("response.output_item.done", output_index=0, item=item)
        read, written = turn.get("tokens", [10, 5])
        usage = {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": turn.get("cached", 0)},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }
        self._event(
            "response.completed", response={**response, "status": "completed", "output": [item], "usage": usage}
        )

    def _messages(self, turn: dict[str, Any], body: dict[str, Any]) -> None:
        number = next(_ids)
        tools = {tool.get("name") for tool in body.get("tools", [])}
        block: dict[str, Any] = {"type": "text", "text": ""}
        if "run" in turn:
            block = _tool(number, "Bash", {"command": turn["run"], "description": "scripted"})
        elif "json" in turn and "StructuredOutput" in tools:
            block = _tool(number, "StructuredOutput", turn["json"])
        stop = "tool_use" if block["type"] == "tool_use" else "end_turn"
        read, written = turn.get("tokens", [10, 5])
        message = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "scripted"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": read,
                "cache_read_input_tokens": turn.get("cached", 0),
                "cache_creation_input_tokens": 0,
                "output_tokens": 1,
            },
        }
        if not body.get("stream"):
            done = {**block, "text": _said(turn)} if stop == "end_turn" else block
            self._json(200, {**message, "content": [done], "stop_reason": stop})
            return
        self._stream()
        self._event("message_start", message=message)
        opened = {**block, "input": {}} if stop == "tool_use" else block
        self._event("content_block_start", index=0, content_block=opened)
        if stop == "tool_use":
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            self._event("content_block_delta", index=0, delta=delta)
        else:
            for part in _parts(turn):
                delta = {"type": "text_delta", "text": part}
                self._event("content_block_delta", index=0, delta=delta)
        if turn.get("cut"):
            return
        self._event("content_block_stop", index=0)
        self._event(
            "message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": written}
        )
        self._event("message_stop")

    def _chat(self, turn: dict[str, Any], body: dict[str, Any]) -> None:
        read, written = turn.get("tokens", [10, 5])
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        common = {"id": f"chat_{next(_ids)}", "created": 1, "model": body.get("model", "scripted")}
        if not body.get("stream"):
            message = {"role": "assistant", "content": _said(turn)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            document = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
            self._json(200, document)
            return
        self._stream()
        common["object"] = "chat.completion.chunk"
        for part in _parts(turn):
            choice = {"index": 0, "delta": {"role": "assistant", "content": part}, "finish_reason": None}
            self._data("", {**common, "choices": [choice]})
        if turn.get("cut"):
            return
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._data("", {**common, "choices": [end], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _tool(number: int, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def _said(turn: dict[str, Any]) -> str:
    return json.dumps(turn["json"]) if "json" in turn else str(turn.get("say", ""))


def _parts(turn: dict[str, Any]):
    """The pieces that an answer is streamed in."""
    if turn.get("endless"):
        for number in itertools.count():
            yield f"{number} "
            time.sleep(0.05)
    yield "And so" if turn.get("cut") else _said(turn)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about; anything else is a fault of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    Handler.script, Handler.log = Script(Path(sys.argv[1])), Path(sys.argv[2])
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
