"""The crontab line works in cron's own bare environment, and says nothing while all is well."""

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
        env=CRON | {"PYTHONPATH": str(CHECKOUT)}, cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_it_speaks_up_when_there_is_trouble(root):
    ctx = context(root)
    (ctx.layout.incoming / "bad.json").write_bytes(b"{nonsense")
    line = program(root, "cron").stdout.strip()
    done = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("* * * * * ")],
        env=CRON | {"PYTHONPATH": str(CHECKOUT)}, cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "bad.json" in done.stderr


def test_systemd_units_name_this_root(root):
    text = program(root, "cron", "--systemd").stdout
    assert str(root) in text
    assert "KillMode=process" in text
    assert "OnCalendar=minutely" in text


def test_a_provider_key_that_is_set_and_not_passed_on_is_pointed_out(root):
    context(root)
    path = root / "t.json"
    trial = {
        "step_id": "t",
        "kind": "trial",
        "task": {"path": "examples/tasks/hello"},
        "environment": "sandbox",
    }
    agent = {"name": "terminus-2", "model_name": "openai/gpt-5.2"}
    path.write_bytes(table(job("j", {**trial, "agent": agent})))
    key = {"OPENAI_API_KEY": "x"}
    assert "--secret OPENAI_API_KEY" in program(root, "validate", str(path), env=key).stdout
    path.write_bytes(table(job("j", {**trial, "agent": agent}), secrets=["OPENAI_API_KEY"]))
    assert "--secret" not in program(root, "validate", str(path), env=key).stdout
