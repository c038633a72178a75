"""A program may name a file by bytes that are no text: everything that lists files shows it all the same."""

import json

from servers import serving
from stores import attempt_dirs, context, idle, job, program, put, shell, table, wait_for

LEAVES = r"""cd "$PARALLELHASSNES_ATTEMPT_DIR"; mkdir -p agent/artifacts/out
for name in 'agent/artifacts/out/no\377text' 'agent/no\377.log' 'no\377.log'; do printf said > "$(printf "$name")"; done"""


def test_a_name_that_is_no_text_is_listed(root):
    ctx = context(root, "durable = false\n")
    step = f"{put(ctx, table(job('j', shell('a', LEAVES))))}/j/a"
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(root, "tick")
    (folder,) = attempt_dirs(ctx, step.partition("/")[0])
    shown = {line["path"] for line in json.loads(program(root, "show", f"{step}/1", "--json").stdout)["files"]}
    assert {"no?.log", "agent/no?.log", "agent/artifacts/out/no?text"} <= shown
    (artifact,) = json.loads(program(root, "artifact", step, "--json").stdout)["files"]
    assert (artifact["path"], artifact["size"]) == ("agent/artifacts/out/no?text", 4)
    assert program(root, "artifact", step, "out").stdout == "said"
    run = folder.name.rpartition("_")[2]
    with serving(root, "--no-tick") as server:
        for path in ("", "/files", "/logs", "/meta", "/ledger"):
            answer = server.client.get(f"/v1/attempts/{run}{path}")
            assert answer.status_code == 200, (path, answer.text)
        assert server.client.get(f"/v1/attempts/{run}/logs").json()["logs"]["agent/no?.log"] == "said"
        for path in (f"/attempts/{step}", f"/batches/{step.partition('/')[0]}"):
            assert server.client.get(path, follow_redirects=True).status_code == 200, path
