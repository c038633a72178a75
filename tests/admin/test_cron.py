"""The crontab line works in cron's own bare environment, and says nothing while all is well."""

import os
import subprocess

from stores import CHECKOUT, command, context, idle, job, program, put, states, table, wait_for

CRON = {"HOME": "/", "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}


def test_the_line_ticks_in_a_bare_environment(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    line = program(root, "cron").stdout.strip()
    assert line.startswith("* * * * * ")
    done = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("* * * * * ").replace("\\%", "%")],
        env=CRON | {"PYTHONPATH": str(CHECKOUT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_it_speaks_up_when_there_is_trouble(root):
    ctx = context(root)
    (ctx.layout.incoming / "bad.json").write_bytes(b"{nonsense")
    line = program(root, "cron").stdout.strip()
    done = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("* * * * * ")],
        env=CRON | {"PYTHONPATH": str(CHECKOUT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "bad.json" in done.stderr


def test_systemd_units_name_this_root(root):
    text = program(root, "cron", "--systemd").stdout
    assert str(root) in text
    assert "KillMode=process" in text
    assert "OnCalendar=minutely" in text


def test_a_provider_key_that_is_set_and_not_passed_on_is_pointed_out(root):
    context(root)
    path = root / "t.json"
    trial = {"step_id": "t", "kind": "trial", "task": {"path": "examples/tasks/hello"}, "environment": "sandbox"}
    agent = {"name": "terminus-2", "model_name": "openai/gpt-5.2"}
    path.write_bytes(table(job("j", {**trial, "agent": agent})))
    key = {"OPENAI_API_KEY": "x"}
    assert "--secret OPENAI_API_KEY" in program(root, "validate", str(path), env=key).stdout
    path.write_bytes(table(job("j", {**trial, "agent": agent}), secrets=["OPENAI_API_KEY"]))
    assert "--secret" not in program(root, "validate", str(path), env=key).stdout


def test_a_path_for_which_a_line_has_no_room_is_shortened_to_what_attempts_need(root, tmp_path):
    context(root)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "codex").write_text("#!/bin/sh\n")
    (tools / "codex").chmod(0o755)
    many = [str(tmp_path / f"a-folder-with-a-rather-long-name-{n}") for n in range(30)]
    path = ":".join([*many, str(tools), *many, os.environ["PATH"]])
    done = program(root, "cron", env={"PATH": path})
    line = done.stdout.strip()
    assert len(line.encode()) <= 998
    assert str(tools) in line
    assert f"left out of PATH, for which the line has no room: {many[0]}" in done.stderr
    ticked = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("* * * * * ").replace("\\%", "%")],
        env=CRON | {"PYTHONPATH": str(CHECKOUT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ticked.returncode, ticked.stdout, ticked.stderr) == (0, "", "")
    short = program(root, "cron", env={"PATH": f"/usr/bin:/usr/bin:{tools}"})
    assert f"PATH=/usr/bin:{tools} " in short.stdout
    assert short.stderr == ""


def test_the_units_say_how_they_go_on_after_a_logout(root):
    text = program(root, "cron", "--systemd").stdout
    assert "loginctl enable-linger" in text
    assert "KillMode=process" in text
