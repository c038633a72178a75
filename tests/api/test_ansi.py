"""Lines of logs as HTML: coloured, and never anything else."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.api.pages.ansi import LONGEST, line_html


class Tags(HTMLParser):
    """The tags and the text of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags |= {(tag, *(name for name, _ in attributes))}

    def handle_data(self, data):
        self.text += data


def test_colours_become_classes():
    html = line_html("\x1b[1;31mbad\x1b[0m and \x1b[38;5;120mgreen\x1b[0m \x1b[48;2;250;0;0mwash")
    assert '<span class="t-bold t-fg1">bad</span> and <span class="t-fg10">green</span>' in html
    assert '<span class="t-bg1">wash</span>' in html


def test_a_line_that_was_written_over_shows_its_last_state():
    assert line_html("10 %\r55 %\r100 %\r") == "100 %"


def test_long_lines_are_cut():
    html = line_html("x" * (LONGEST + 5))
    assert html.endswith("… 5 more characters of this line</span>")


def test_links_and_titles_of_a_terminal_are_left_out():
    html = line_html("\x1b]8;;javascript:alert(1)\x1b\\here\x1b]8;;\x1b\\\x1b]0;title\x07 <b>")
    assert "javascript" not in html
    assert Tags(html).tags <= {("span", "class")}


@given(st.text(alphabet=st.sampled_from("ab<>&\"'\x1b[]0;1m38\r\x07\\\t "), max_size=80))
def test_nothing_but_spans_comes_out(text):
    assert Tags(line_html(text)).tags <= {("span", "class")}
