"""What the base install does without the extras, and what it says where one is missing."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from stores import CHECKOUT

PACKAGE = CHECKOUT / "parallelhassnes"
MODULES = {
    "matplotlib",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "prometheus_client",
    "openai",
    "apprise",
    "mcp",
    "obstore",
}
"""Top-level modules that an extra brings."""
GUARDED = {
    "report/figures.py": "`require` is called before anything is drawn",
    "execute/escapes.py": "`has_numpy` is asked first; without it escapes are resolved one after the other",
    "execute/redact.py": "`has_numpy` is asked first",
    "api/routes/metrics.py": "the route asks before it makes a gauge",
    "steps/analysis/analysis_step.py": "loaded ahead where it is there; `work` says that it is missing",
    "steps/verdict/verdict_step.py": "loaded ahead where it is there; `work` says that it is missing",
    "steps/analysis/engine.py": "`ask_endpoint` asks first",
}


def unguarded(node: ast.AST, guarded: bool = False):
    """The modules of extras that are imported outside of ``with extra(…)``."""
    if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        return
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        guarded = guarded or any(getattr(call.func, "id", "") == "extra" for call in calls)
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    if not guarded:
        yield from (name for name in names if name.partition(".")[0] in MODULES)
    for child in ast.iter_child_nodes(node):
        yield from unguarded(child, guarded)


def test_an_import_of_an_extra_says_what_to_install_where_it_is_missing():
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if (names := list(unguarded(ast.parse(path.read_text()))))
    }
    assert set(found) == set(GUARDED)


def test_all_is_all_and_the_lock_is_made_from_it():
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = set(extras) - {"all", "dev", "docs"}
    assert extras["all"] == [f"parallelhassnes[{','.join(extra for extra in extras if extra in own)}]"]
    assert "parallelhassnes[all]" in extras["dev"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The packages of this environment but those that extras bring; openai is Harbor's, too."""
    folder = tmp_path_factory.mktemp("bare")
    for place in (place for place in sys.path if place.endswith("site-packages")):
        for entry in os.scandir(place):
            is_left_out = entry.name.replace("-", ".").partition(".")[0] in MODULES - {"openai"}
            if not is_left_out and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry.path)
    return folder


@pytest.fixture(scope="module")
def program(bare, tmp_path_factory):
    """Run Python there."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-S", "-P", *arguments],
            cwd=home,
            env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{bare}"},
            capture_output=True,
            text=True,
        )

    absent = f"import importlib.util as u; print([n for n in {sorted(MODULES)} if u.find_spec(n)])"
    assert run("-c", absent).stdout == "['openai']\n"
    (home / "tasks").mkdir()
    for name in ("hello", "offline-report"):
        (home / "tasks" / name).symlink_to(CHECKOUT / "examples" / "tasks" / name)
    done = run("-m", "parallelhassnes", "run", "tasks", "-a", "oracle", "-k", "2", "-e", "sandbox", "--json", "-q")
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.namespaces
def test_the_base_install_runs_shows_and_counts(program):
    for command in (
        "tick",
        "scoreboard",
        "scoreboard latest",
        "show latest",
        "results latest --by task",
        "errors latest",
        "report latest --markdown",
        "audit verify",
    ):
        done = program("-m", "parallelhassnes", *command.split())
        assert done.returncode == 0, (command, done.stderr)
    rates = json.loads(program("-m", "parallelhassnes", "results", "latest", "--json").stdout)["groups"]
    assert all(rate["pass_rate_low"] < rate["pass_rate"] == 1 for rate in rates)


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["-m", "parallelhassnes", "report", "latest", "-o", "report.html"],
            "a report needs matplotlib, which is not installed; pip install 'parallelhassnes[report]'\n",
        ),
        (
            ["-m", "parallelhassnes", "run", "tasks", "-a", "oracle", "-e", "sandbox", "--report", "report.html"],
            "a report needs matplotlib, which is not installed; pip install 'parallelhassnes[report]'\n",
        ),
        (
            ["-m", "parallelhassnes", "compare", "latest", "latest"],
            "the intervals of a comparison need numpy, which is not installed; pip install 'parallelhassnes[stats]'\n",
        ),
        (
            ["-m", "parallelhassnes", "results", "latest", "--format", "parquet", "-o", "results.parquet"],
            "Parquet needs pyarrow, which is not installed; pip install 'parallelhassnes[parquet]'\n",
        ),
    ],
)
def test_a_missing_extra_is_one_line(program, command, said):
    done = program(*command)
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.namespaces
def test_from_python_and_over_http(program):
    frames = "import parallelhassnes as ph\ntry: ph.trials_df(ph.open_store('.'))\nexcept ph.UserError as e: print(e)"
    assert program("-c", frames).stdout == (
        "frames need pandas, which is not installed; pip install 'parallelhassnes[df]'\n"
    )
    scrape = (
        "from parallelhassnes.api.routes.metrics import metrics\n"
        "try: metrics(None)\nexcept Exception as e: print(e.status_code, e.detail)"
    )
    assert program("-c", scrape).stdout == (
        "501 metrics need prometheus_client, which is not installed; pip install 'parallelhassnes[server]'\n"
    )
    ask = (
        "import sys; sys.modules['openai'] = None\n"
        "from parallelhassnes.steps.analysis import engine\n"
        "try: engine.ask_endpoint({}, '', environ={}, timeout_sec=1.0, schema={})\n"
        "except engine.EngineFailed as e: print(e.failure_class, e)"
    )
    done = program("-c", ask)
    assert "configuration" in done.stdout, done.stderr
    assert "pip install 'parallelhassnes[models]'" in done.stdout


def test_where_the_base_install_is_told_of():
    for page in ("docs/start.md", "docs/upgrade.md"):
        assert "parallelhassnes[all]" in (CHECKOUT / page).read_text() or ".[all]" in (CHECKOUT / page).read_text()
    assert Path(CHECKOUT / "requirements.lock").read_text().count("\nmatplotlib==") == 1
