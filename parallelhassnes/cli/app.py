"""``parallelhassnes``: parse, call, print. Errors of the user are one line each and exit 2, ours exit 3."""

import codecs
import contextlib
import errno
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn, TextIO, override

import typer
from typer.core import TyperGroup

from parallelhassnes.cli.commands import SECTIONS, Commands, of_today, summaries
from parallelhassnes.cli.output import terminal, usage
from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.harmless import one_line
from parallelhassnes.version import __version__

USER_ERROR, OUR_ERROR, INTERRUPTED = 2, 3, 130
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What typer raises for a wrong command line; it has no public name."""
HOST_TROUBLE = {
    errno.EROFS: "make it writable, or choose another --root",
    errno.EACCES: "change its permissions, or choose another --root",
    errno.EPERM: "change its permissions, or choose another --root",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.EIO: "look after the disk or the mount",
    errno.ESTALE: "look after the mount, or mount it again",
    errno.EUCLEAN: "have the file system checked",
    errno.ELOOP: "look where its links lead",
    errno.ENOTCONN: "look after the mount, or mount it again",
    errno.ETIMEDOUT: "look after the mount or the network",
}
"""What a host may refuse anywhere, and what to do about it; any other OSError is our fault."""


class _Sections(TyperGroup):
    def __init__(self, **said: Any) -> None:
        super().__init__(**said | {"commands": Commands()})

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, of_today(args))

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width, said = max(map(len, self.commands)), summaries()
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), said[name]) for name in names])


app = typer.Typer(
    name="parallelhassnes",
    cls=_Sections,
    help="Run batches of Harbor trials from a directory queue; everything is kept under runs/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run batches of Harbor trials from a directory queue; everything is kept under runs/."""


def main() -> NoReturn:
    """The program. Exit codes: 0 done, 1 something under test failed, 2 the input is wrong, 3 our fault."""
    # pydantic would look through every installed package for plugins: 0.1 s at each start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _import_when_used("importlib.metadata", "entry_points")  # which it takes from there all the same
    if os.getpid() == 1:
        from parallelhassnes.execute import processes

        processes.be_init()
    _open_streams()
    code = _code()
    try:
        sys.stdout.flush()  # what could not be written is told here, and not by the interpreter at its end
    except BrokenPipeError:
        code = _reader_gone()
    except OSError as error:
        code = _not_written(error)
    try:
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)
    sys.exit(code)


def _code() -> int:
    """Do what the command line says; the exit code."""
    try:
        os.getcwd()  # noqa: PTH109 - only whether there is one
    except OSError as error:
        _report(UserError(f"the current folder: {error.strerror}", fix="cd to one that is there"))
        return USER_ERROR
    try:
        return _obey()
    except UsageError as error:
        line = usage.line(error)
        if line is None:
            error.show()  # a group without a command prints its help
        else:
            _tell(line)
        _print_document(line or error.format_message())
        return USER_ERROR
    except typer.Abort:
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except UserError as error:
        _report(error)
        return USER_ERROR
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the one place where what we did not foresee becomes a line and a log
        if _was_interrupted(error):
            return INTERRUPTED
        if isinstance(error, OSError) and error.errno in HOST_TROUBLE:
            return _not_written(error)
        _tell(f"parallelhassnes: internal error ({type(error).__name__}); the log is {_log()}")
        return OUR_ERROR


def _was_interrupted(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error: a library that it met in its work says so in words, or by what it raises from."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (
            type(error).__name__ == "SchemaError" and "KeyboardInterrupt" in str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _import_when_used(name: str, *functions: str) -> None:
    """Have an import of a package that nothing has imported yet cost nothing until something of it is used.

    Args:
        functions: of the package, that are taken from it without being called.
    """
    if name in sys.modules:
        return
    parent, _, own = name.rpartition(".")
    around = importlib.import_module(parent)
    spec = PathFinder.find_spec(name, around.__path__)
    stand_in = ModuleType(name)

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    def call(function: str, *said: Any, **named: Any) -> Any:
        return load(function)(*said, **named)

    stand_in.__getattr__ = load  # type: ignore[method-assign]
    stand_in.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    for function in functions:
        setattr(stand_in, function, partial(call, function))
    sys.modules[name] = stand_in
    setattr(around, own, stand_in)


def _obey() -> int:
    """Do what the command line says, and tell what of the store was passed over; the exit code."""
    from parallelhassnes.store import members

    with members.collecting() as passed_over:
        try:
            return app(prog_name="parallelhassnes", standalone_mode=False) or 0
        finally:
            for line in passed_over:
                _tell(f"passed over {one_line(line)}")


def _open_streams() -> None:
    """Open what a caller closed of the standard streams: a lock's file must never get the number of one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
    codecs.register_error("escape", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="escape")
    sys.stdout, sys.stderr = terminal.guard(sys.stdout), terminal.guard(sys.stderr, is_ours=True)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write characters that a stream's encoding lacks as JSON's escapes, so that a document stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _reader_gone() -> int:
    """End as a program in front of ``head`` does."""
    _drop(sys.stdout)
    return 0


def _not_written(error: OSError) -> int:
    """Tell what the host refuses, of a file or of standard output."""
    if error.filename is None:
        _drop(sys.stdout)
    fix = HOST_TROUBLE.get(error.errno or 0, "write to another place")
    _report(UserError(f"{error.filename or 'writing'}: {error.strerror}", fix=fix))
    return USER_ERROR


def _drop(stream: TextIO) -> None:
    """Have what is still to be written to a standard stream that takes nothing go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(error: UserError) -> None:
    _print_document(str(error), error.problems if isinstance(error, InvalidInput) else [])
    for line in error.lines():
        _tell(one_line(line))


def _tell(line: str) -> None:
    """Print a line of what went wrong, if that can be: the exit code says it, too, and nothing may go wrong of it."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _print_document(error: str, problems: Sequence[Problem] = ()) -> None:
    """Print the one document on standard output, where ``--json`` asks for one."""
    if "--json" not in sys.argv:
        return
    from parallelhassnes.store.atomic import dumps

    errors = [problem._asdict() | {"line": problem.line()} for problem in problems]
    try:
        sys.stdout.write(dumps({"ok": False, "error": error, "errors": errors}))
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)


def _log() -> Path:
    """Write the traceback to a file and name it."""
    import tempfile
    import traceback

    from parallelhassnes.cli.options import root_or_default
    from parallelhassnes.store.records import now_text

    text = f"{now_text()} {sys.argv}\n{traceback.format_exc()}"
    arguments = sys.argv[1:]
    named = arguments[arguments.index("--root") + 1 :][:1] if "--root" in arguments else []
    name = f"error-{os.getpid()}.log"
    places: tuple[Callable[[], Path], ...] = (
        lambda: root_or_default(Path(named[0]) if named else None) / "runs" / "_system",
        lambda: Path(tempfile.gettempdir()),
    )
    for find in places:
        try:
            place = find() / name
            place.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, ValueError, UserError):
            continue
        return place
    for line in text.splitlines():
        _tell(line)
    return Path("-")


if __name__ == "__main__":
    main()
