"""The recording on the README's first screen: real commands, short enough, with nothing of the machine that made it."""

import re
import xml.etree.ElementTree as ET

import film
import pytest
from stores import CHECKOUT

PICTURE = CHECKOUT / "docs" / "img" / "first-run.svg"


def test_the_picture_is_of_todays_scenes_and_ends_in_time():
    text = PICTURE.read_text(encoding="utf-8")
    shown = "\n".join("".join(each.itertext()) for each in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text"))
    for line in film.SCENES:
        assert f"$ {line}" in shown, "python -m tests.support.film docs/img/first-run.svg"
    assert float(re.search(r"animation-duration:([0-9.]+)s", text)[1]) <= film.LONGEST_SEC
    assert "36 trials = 9 tasks × 2 agents × 2" in shown
    assert "verdict: the task is broken" in shown
    for word in ("/tmp", "/root", "/home", "site-packages", "Traceback"):
        assert word not in shown
    assert "docs/img/first-run.svg" in (CHECKOUT / "README.md").read_text(encoding="utf-8")[:1500]


@pytest.mark.namespaces
def test_what_is_filmed_is_a_real_terminal_as_it_was():
    frames = film.film(("parallelhassnes run examples/tasks/slow -a oracle -e sandbox", "parallelhassnes ls"))
    plain = ["\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in frame.lines) for frame in frames]
    assert plain[0] == "$ "
    assert any("0/1 trial done" in each for each in plain), "the live display"
    assert "1/1 trial done: 1 passed" in plain[-1]
    assert plain[-1].rstrip().endswith("slow × oracle")
    picture = ET.fromstring(film.draw(frames))
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}g[@class='f']")) == len(frames)


def test_a_screen_does_as_the_live_display_says():
    screen = film.Screen()
    screen.write("first\r\nsecond\r\n\x1b[?25lthird")
    screen.write("\r\x1b[2K\x1b[1A\x1b[2Kagain\n\x1b[31mred\x1b[0m")
    assert screen.shown() == ("first", "again", "\x1b[31mred\x1b[0m")
