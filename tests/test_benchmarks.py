"""The benchmarks run and their JSON has its shape; no time is tested."""

import json
import subprocess
import sys

from stores import CHECKOUT, environment


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
        timeout=100,
    )


def test_the_smallest_row_is_measured_and_written_down(tmp_path):
    done = benchmarks("startup", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "benchmark.json").read_bytes())
    assert document.keys() == {"schema_version", "at", "quick", "machine", "rows"}
    assert document["machine"]["cpus"] > 0
    assert document["machine"]["versions"]["harbor"]
    (row,) = document["rows"]
    assert row["name"] == "startup"
    for side in row["sides"]:
        (run,) = side["runs"]
        assert run["exit_code"] == 0
        assert run["cpu_sec"] > 0
        assert 0 < run["wall_sec"] <= run["settled_sec"]
        assert side["command"]
    assert {figure["measure"] for figure in row["figures"]} == {"--help: wall", "idle tick: wall", "scoreboard: wall"}
    assert all(figure["met"] in (True, False) for figure in row["figures"])
    assert "idle tick" in done.stdout
    assert not (tmp_path / "work").exists()


def test_a_detached_grandchild_is_waited_for_and_counted(tmp_path):
    """The meter sees what a daemonising command leaves behind."""
    burn = "import os,time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    script = f"setsid {sys.executable} -c '{burn}' &"
    out, log = tmp_path / "usage.json", tmp_path / "log"
    command = [sys.executable, "-m", "benchmarks.meter", str(out), str(log), "1", "sh", "-c", script]
    subprocess.run(command, check=True, env=environment(), cwd=CHECKOUT, timeout=60)
    usage = json.loads(out.read_bytes())
    assert usage["cpu_sec"] >= 0.3
    assert usage["settled_sec"] > usage["wall_sec"]
    assert usage["peak_pss_bytes"] > 1_000_000


def test_an_unknown_row_is_refused_with_the_names_there_are():
    done = benchmarks("nonsense")
    assert done.returncode == 2
    assert "sandbox" in done.stderr
