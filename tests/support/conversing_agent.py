"""A Harbor agent that a simulated user talks to: an ACP server of its own, which does what the second message asks."""

from harbor.agents.base import BaseAgent
from harbor.agents.protocols import ACPAgentMixin
from harbor.models.bridge import BridgeKind

SERVER = """import json, sys

said = []
def answer(asked, result):
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)

for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "initialize":
        answer(asked, {"protocolVersion": 1, "agentCapabilities": {}, "authMethods": []})
    elif method == "session/new":
        answer(asked, {"sessionId": "s1"})
    elif method == "session/prompt":
        text = "".join(part.get("text", "") for part in asked["params"]["prompt"])
        said.append(text)
        with open("/logs/agent/heard.txt", "a") as heard:
            heard.write(text.strip() + chr(10))
        if len(said) == 1:
            reply = "Which file?"
        else:
            reply = "Made it."
            open("/app/out", "w").close()
        content = {"type": "text", "text": reply}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        params = {"sessionId": "s1", "update": update}
        print(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}), flush=True)
        answer(asked, {"stopReason": "end_turn"})
    elif "id" in asked and method:
        answer(asked, {})
"""


class ConversingAgent(BaseAgent, ACPAgentMixin):
    """``import_path = "conversing_agent:ConversingAgent"``."""

    SUPPORTED_BRIDGES = frozenset({BridgeKind.ACP})

    @staticmethod
    def name():
        return "conversing"

    def version(self):
        return "1"

    async def setup(self, environment):
        return

    async def run(self, instruction, environment, context):
        raise AssertionError("a simulated user is to speak with it")

    async def acp_install(self, environment):
        done = await environment.exec(f"cat > /tmp/acp.py <<'END'\n{SERVER}END\n")
        assert done.return_code == 0, done

    def acp_command(self):
        return ["python3", "/tmp/acp.py"]
