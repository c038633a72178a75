"""What is understood of a Dockerfile, and what is refused with its line. Neither Harbor nor a sandbox is used."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import python

from parallelhassnes.sandbox.image import copying, dockerfile
from parallelhassnes.sandbox.root_layout import RootFolder


def reasons(text: str) -> list[tuple[int, str]]:
    return [
        (p.line, p.reason.removesuffix(" not supported by the sandbox environment"))
        for p in dockerfile.parse(text).unsupported
    ]


def test_the_whole_of_what_is_honoured():
    image = dockerfile.parse(
        "# syntax=docker/dockerfile:1\n"
        "# a comment\n"
        "ARG VERSION=12\n"
        "FROM --platform=linux/amd64 debian:${VERSION}-slim AS main\n"
        "\n"
        "label a=b\n"
        "arg VERSION\n"
        "ARG PLACE=/srv\n"
        'ENV ONE=1 TWO="2 $ONE" \\\n'
        "  # inside a continuation\n"
        "\n"
        "  THREE='$ONE' FOUR=a\\ b\n"
        "ENV LEGACY all of  this\n"
        "WORKDIR $PLACE/x\n"
        "WORKDIR ../y/\n"
        "USER ${NOBODY:-nobody}:${GROUP-}\n"
        'COPY --chmod=755 --chown=1:1 ["a b", "c", "dir/"]\n'
        "ADD d* .\n"
        'CMD ["true"]\n'
        "EXPOSE 80\n"
        "VOLUME /data $PLACE/z\n"
    )
    assert image.unsupported == []
    assert (image.base, image.workdir, image.user) == ("debian:12-slim", "/srv/y", "nobody:")
    assert image.env == {"ONE": "1", "TWO": "2 ", "THREE": "$ONE", "FOUR": "a b", "LEGACY": "all of  this"}
    assert image.copies[0] == dockerfile.Copy(17, ("a b", "c"), "/srv/y/dir/", 0o755, False)
    assert image.copies[1] == dockerfile.Copy(18, ("d*",), "/srv/y/", None, True)
    assert image.volumes == ["/data", "/srv/z"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a\n\nRUN apt-get \\\n  update\nRUN x", [(3, "RUN is"), (5, "RUN is")]),
        ("FROM a AS b\nFROM c\nCOPY --from=b /x /x\n", [(2, "several stages are"), (3, "COPY --from is")]),
        ("FROM a\nADD https://x/y /y\nADD git@github.com:a/b.git /b", [(2, "ADD of a URL is"), (3, "ADD of a URL is")]),
        (
            "FROM a\nRUN <<EOF\nWORKDIR /not\nEOF\nCOPY <<-'X' <<Y /t/\n1\n\tX\nENV 2\nY\nWORKDIR /yes",
            [(2, "here-documents are"), (5, "here-documents are")],
        ),
        (
            "FROM a\nONBUILD COPY x y\nFOO bar",
            [(2, "ONBUILD is"), (3, "FOO is not an instruction that the sandbox environment knows")],
        ),
        ("FROM a\nENV A='b", [(2, "a single quote is not closed")]),
        ("FROM a\nWORKDIR ${A", [(2, "a ${ is not closed")]),
        ("FROM a\nCOPY x", [(2, "COPY needs a source and a destination")]),
        ("# escape=`\nFROM a\nENV A=C:\\x`\n  B=1\nrun x", [(5, "RUN is")]),
        ("", []),
    ],
)
def test_what_is_refused_is_named_with_its_line(text, found):
    assert reasons(text) == found


def test_the_last_stage_counts_where_stages_are_skipped():
    image = dockerfile.parse("FROM a\nENV A=1\nWORKDIR /a\nFROM b\nENV B=1\n")
    assert (image.env, image.workdir, image.base) == ({"B": "1"}, "/", "b")


def test_check_names_compose_and_a_missing_dockerfile(tmp_path):
    assert [p.line_of() for p in dockerfile.check(tmp_path)] == [
        "environment/Dockerfile: there is none, and images are not supported by the sandbox environment"
    ]
    (tmp_path / "docker-compose.yaml").touch()
    (tmp_path / "Dockerfile").write_bytes(b"\xef\xbb\xbfFROM a\r\nRUN x\r\n")
    assert [p.line_of() for p in dockerfile.check(tmp_path)] == [
        "environment/Dockerfile line 2: RUN is not supported by the sandbox environment",
        "environment/docker-compose.yaml: services are not supported by the sandbox environment",
    ]


def test_check_and_probe_do_not_import_harbor():
    program = (
        "import sys; from parallelhassnes.sandbox.engines import choice; from parallelhassnes.sandbox.image import dockerfile; choice.probe();"
        " sys.exit('harbor' in sys.modules or 'asyncio' in sys.modules and 'litellm' in sys.modules)"
    )
    python(program)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A ${A} ${N:-x} ${A:+y} ${N:+y} ${E-d} ${E:-d} ${N-${A}}", ["1", "1", "x", "y", "", "", "d", "1"]),
        ('a"b c"\'d e\'f "\\$A\\"" \'\' $', ["ab cd ef", '$A"', "", "$"]),
        ("$SP${SP}", ["a ba b"]),
    ],
)
def test_words(text, expected):
    assert dockerfile.split(text, {"A": "1", "E": "", "SP": "a b"}) == expected


@given(st.text(alphabet="abc $\"'\\{}:-+=\n#<[]", max_size=80))
def test_no_text_breaks_the_reader(text):
    for name in ("ENV", "COPY", "WORKDIR", "ARG", "FROM", "USER", "VOLUME", ""):
        dockerfile.parse(f"FROM x\n{name} {text}")


def tree(root: RootFolder, place: str) -> list[str]:
    top = root.path / place.lstrip("/")
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir())


@pytest.fixture
def context(tmp_path) -> Path:
    folder = tmp_path / "environment"
    for name in ("a.txt", "b.txt", "c.py", "sub/d.txt", "sub/deep/e.py", "skip/f", ".hidden"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def build(context: Path, text: str) -> RootFolder:
    root = RootFolder(context.parent / "root", ())
    for copy in dockerfile.parse(f"FROM x\nWORKDIR /w\n{text}").copies:
        copying.copy(context, copy, root)
    return root


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("COPY a.txt b.txt ./", "/w", ["a.txt", "b.txt"]),
        ("COPY *.txt x/", "/w/x", ["a.txt", "b.txt"]),
        ("COPY a.txt renamed", "/w", ["renamed"]),
        ("COPY sub .", "/w", ["d.txt", "deep/e.py"]),
        ("COPY sub/ sub2", "/w", ["sub2/d.txt", "sub2/deep/e.py"]),
        ("COPY s*/d*.txt ../../top/", "/top", ["d.txt"]),
        ("COPY ../../sub/../a.txt /", "/", ["a.txt"]),
        ("COPY a.txt /opt/tool/bin/", "/opt/tool", ["bin/a.txt"]),
        ("COPY . .", "/w", [".dockerignore", ".hidden", "a.txt", "b.txt", "c.py", "sub/d.txt", "sub/deep/e.py"]),
    ],
)
def test_copy(context, text, place, found):
    (context / ".dockerignore").write_text("# comment\nskip\n**/*.py\n!c.py\n!sub/deep\n")
    root = build(context, text)
    have = [name for name in tree(root, place) if not name.startswith(("dev/", "var/"))]
    assert have == found


def test_copy_keeps_and_sets_modes_and_links(context):
    (context / "run.sh").write_text("x")
    (context / "run.sh").chmod(0o750)
    (context / "sub/link").symlink_to("d.txt")
    root = build(context, "COPY run.sh one\nCOPY --chmod=0600 run.sh two\nCOPY sub sub")
    assert (root.path / "w/one").stat().st_mode & 0o777 == 0o750
    assert (root.path / "w/two").stat().st_mode & 0o777 == 0o600
    assert (root.path / "w/sub/link").readlink() == Path("d.txt")


def test_add_unpacks_an_archive(context):
    subprocess.run(["tar", "-czf", "x.tgz", "sub"], cwd=context, check=True)
    assert tree(build(context, "ADD x.tgz /un/"), "/un") == ["sub/d.txt", "sub/deep/e.py"]


@pytest.mark.parametrize("source", ["nothing", "no*", "out", "out/secret"])
def test_copy_of_nothing_or_of_what_is_outside_names_the_line(context, tmp_path, source):
    (tmp_path / "secret").write_text("s")
    (context / "out").symlink_to(tmp_path)
    with pytest.raises(copying.CopyError, match=r"^environment/Dockerfile line 3: nothing in environment/ matches"):
        build(context, f"COPY {source} /x/")


def test_a_copied_link_does_not_lead_out(context, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (context / "sub/escape").symlink_to(outside)
    root = build(context, "COPY sub /x\nCOPY a.txt /x/escape/\nCOPY a.txt /x/escape/new/b")
    assert list(outside.iterdir()) == []
    assert (root.path / str(outside).lstrip("/") / "a.txt").exists()


@pytest.mark.parametrize("target", ["/usr/bin/ls", "/lib/x.so", "/usr/lib/x/y", "/etc/ld.so.preload", "/bin/"])
def test_programs_and_libraries_of_the_host_cannot_be_replaced(context, target):
    with pytest.raises(copying.CopyError, match=r"line 3: .* belongs to the host's programs"):
        build(context, f"COPY a.txt {target}")


@pytest.mark.parametrize("text", ["", "# nothing\n", "ARG A=1\n"])
def test_an_image_begins_with_from(text, tmp_path):
    (tmp_path / "Dockerfile").write_text(text)
    (found,) = dockerfile.check(tmp_path)
    assert found.line_of().startswith("environment/Dockerfile: has no FROM")


def test_path_is_the_images_where_the_dockerfile_adds_to_it():
    image = dockerfile.parse("FROM a\nENV PATH=/opt/x/bin:$PATH\nENV ALSO=${PATH:+there}\n")
    assert image.env == {"PATH": f"/opt/x/bin:{dockerfile.PATH}", "ALSO": "there"}
