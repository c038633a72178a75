"""What a user waits for when nothing is to be done."""

from statistics import median

from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import Figure, Row, Side
from benchmarks.setting import Setting


def startup(setting: Setting) -> Row:
    """``--help``, and a tick and the scoreboard of an empty store, beside ``harbor --help``."""
    row = Row(name="startup", work="the program's start")
    folder = setting.root("startup")
    programs: dict[str, tuple[list[str], float | None]] = {
        "--help": (s.ours("--help"), 0.1),
        "idle tick": (s.ours("tick", "--quiet", "--root", str(folder)), 0.08),
        "scoreboard": (s.ours("scoreboard", "--root", str(folder)), 0.15),
    }
    if (program := s.harbor()) is not None:
        programs["harbor --help"] = ([program, "--help"], None)
    row.sides = [Side(name=name, command=command) for name, (command, _) in programs.items()]
    s.bring_to_rest(setting, folder)
    for _ in range(setting.runs(7)):
        for side in row.sides:
            side.runs.append(measure(side.command, setting.work / "startup.log", s.environment()))
    walls = {side.name: median(run.wall_sec for run in side.runs) for side in row.sides}
    row.figures = [
        Figure(measure=f"{name}: wall", unit="s", ours=walls[name], goal=goal)
        for name, (_, goal) in programs.items()
        if not name.startswith("harbor")
    ]
    if "harbor --help" in walls:
        row.figures[0].peer, row.figures[0].peer_name = walls["harbor --help"], "harbor --help"
    return row
