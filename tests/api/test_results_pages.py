"""Results on pages: a comparison says what ``compare`` says and leads to the trials, the matrix shows what its address asks for."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import scored
from browsers import accessibility_problems, page, running
from playwright.sync_api import expect
from scored import Scored
from servers import Server, serving

from parallelhassnes.api.pages.render import folds

EVIL = "<script>alert(1)</script>"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Scored]]:
    """A server over two batches with flips between them."""
    root = tmp_path_factory.mktemp("compared") / "root"
    root.mkdir()
    store = scored.make(root)
    with serving(root, "--no-tick") as server:
        yield server, store


def shown(server: Server, a: str, b: str) -> Any:
    return server.client.get(f"/compare?{urlencode({'a': a, 'b': b})}")


def test_every_flip_leads_to_the_trials_of_both_sides(site):
    server, store = site
    found = server.client.get("/v1/compare", params={"a": store.first, "b": store.second}).json()
    answer = shown(server, store.first, store.second)
    assert answer.status_code == 200
    flips = [flip for agent in found["agents"] for flip in agent["flips"]]
    assert [(flip["task"], flip["change"]) for flip in flips] == [("beta", "lost")]
    linked = set(re.findall(r'href="(/attempts/[^"]+)"', answer.text))
    for trial in (*flips[0]["a"], *flips[0]["b"]):
        _, batch, job, _, step, _, attempt = trial["attempt"].split("/")
        address = f"/attempts/{batch}/{job}/{step}/{attempt}"
        assert address in linked
        attempt_page = server.client.get(address)
        assert attempt_page.status_code == 200
        assert f"parallelhassnes export {batch} --to view" in attempt_page.text
        assert "harbor view view" in attempt_page.text
    assert {trial["passed"] for trial in flips[0]["a"]} == {True}
    assert {trial["passed"] for trial in flips[0]["b"]} == {False}
    (costly,) = [agent for agent in found["agents"] if agent["a"] == "CostlyAgent"]
    assert f"p = {costly['p_value']:.3g}" in answer.text


def test_the_form_becomes_the_sides_that_the_command_takes(site):
    server, store = site
    asked = {"a": store.first, "a_agent": "nop", "b": store.first, "b_agent": "CostlyAgent", "b_label": "team=a"}
    answer = server.client.get("/compare", params=asked)
    assert answer.status_code == 303
    a, b = f"{store.first}@nop", f"{store.first}@CostlyAgent,team=a"
    assert answer.headers["location"] == f"/compare?{urlencode({'a': a, 'b': b})}"
    told = shown(server, a, b).text
    assert "A is " in told
    assert "passes in B only" in told


def test_with_one_side_what_fits_it_is_at_hand(site):
    server, store = site
    answer = server.client.get("/compare", params={"a": store.first})
    links = re.findall(r'href="(/compare\?a=[^"]+)"', answer.text)
    assert f"/compare?a={quote(store.first)}%40oracle&amp;b={quote(store.first)}%40nop" in links
    for link in links:
        assert server.client.get(link.replace("&amp;", "&")).status_code == 200, link


@pytest.mark.parametrize(
    ("a", "said", "status"),
    [
        ("nightly", "has no batch nightly", 404),
        ("latest@orcale", "did you mean @oracle?", 404),
        ("experiment:nigthly", "did you mean nightly?", 404),
        ("label:team", "a label is written NAME=VALUE", 422),
        ("label:team=b", "did you mean", 404),
        (EVIL, "&lt;script&gt;", 404),
        ("@", "names nothing", 404),
    ],
)
def test_what_names_nothing_is_said_beside_the_form(site, a, said, status):
    server, store = site
    answer = shown(server, a, store.second)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text[:3000]
    assert EVIL not in answer.text
    assert '<form action="/compare"' in answer.text


@pytest.mark.browser
@pytest.mark.timeout(200)
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_the_page_is_for_everybody(site, tmp_path, look):
    server, store = site
    options = {"viewport": PHONE} if look == "phone" else {"color_scheme": look}
    with running(tmp_path) as browser, page(browser, server.url, bypass_csp=True, **options) as seen:
        for address in (
            "/compare",
            f"/compare?a={store.first}",
            f"/batches/{store.first}?sort=job",
            f"/compare?a={store.first}&b={store.second}",
        ):
            seen.goto(address)
            assert accessibility_problems(seen) == [], address
            assert seen.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
        seen.keyboard.press("j")
        expect(seen.locator("[data-row] a:focus")).to_have_count(1)
        seen.keyboard.press("Enter")
        expect(seen).to_have_url(re.compile("/attempts/"))


def rows_of(server: Server, store: Scored, **asked: str) -> list[str]:
    answer = server.client.get(f"/batches/{store.first}", params=asked)
    assert answer.status_code == 200, asked
    return re.findall(r'<tr data-row id="j-(\w+)">', answer.text)


@pytest.mark.parametrize(
    ("asked", "jobs"),
    [
        ({}, ["beta", "alpha"]),
        ({"sort": "job"}, ["alpha", "beta"]),
        ({"sort": "reward", "agent": "ScriptedAgent"}, ["alpha", "beta"]),
        ({"sort": "-reward", "agent": "ScriptedAgent"}, ["beta", "alpha"]),
        ({"sort": "passes", "agent": "ScriptedAgent"}, ["alpha", "beta"]),
        ({"sort": "-passes", "agent": "ScriptedAgent"}, ["beta", "alpha"]),
        ({"reward": "scored", "agent": "ScriptedAgent"}, ["alpha"]),
        ({"reward": "no_score", "sort": "job"}, ["beta"]),
        ({"reward": "passed", "agent": "nop"}, []),
        ({"failure": "agent_error"}, ["beta"]),
        ({"failure": "rate_limit"}, []),
        ({"tag": "task=alpha"}, ["alpha"]),
        ({"tag": EVIL}, []),
        ({"agent": "nobody"}, []),
        ({"q": "ALPHA", "show": "all"}, ["alpha"]),
    ],
)
def test_the_address_says_which_rows_of_the_matrix_and_in_which_order(site, asked, jobs):
    assert rows_of(*site, **asked) == jobs


def test_a_wrong_choice_is_a_page_that_names_it(site):
    server, store = site
    answer = server.client.get(f"/batches/{store.first}", params={"sort": "colour"})
    assert (answer.status_code, "query/sort" in answer.text) == (422, True)


def test_no_cell_of_the_matrix_holds_two_numbers(site):
    server, store = site
    text = server.client.get(f"/batches/{store.first}").text
    table = text[text.index('<table class="matrix">') : text.index("</table>", text.index('<table class="matrix">'))]
    cells = [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td class=\"num.*?</td>", table)]
    assert {"2/2", "1/2", "0.50"} <= set(cells)
    assert all(re.fullmatch(r"|–|\d+|\d+/\d+|-?\d+\.\d+", cell) for cell in cells), cells
    heads = table[: table.index("</thead>")]
    below = sum(int(span) for span in re.findall(r'colspan="(\d+)"', heads))
    assert len(cells) == below * 3  # two jobs and all


def test_names_fold_where_their_words_end_and_nowhere_else():
    assert str(folds("a-b_c/<d>")) == "a-<wbr>b_<wbr>c/<wbr>&lt;d&gt;"
    assert str(folds("")) == ""


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False])
def test_the_matrix_is_narrowed_by_keyboard_with_and_without_scripts(site, tmp_path, scripts):
    server, store = site
    with running(tmp_path) as browser, page(browser, server.url, java_script_enabled=scripts) as seen:
        seen.goto(f"/batches/{store.first}")
        seen.get_by_text("Filter and sort").focus()
        seen.keyboard.press("Enter")
        seen.get_by_role("combobox", name="Failure").select_option("agent_error")
        if not scripts:
            seen.get_by_role("button", name="Show", exact=True).focus()
            seen.keyboard.press("Enter")
        expect(seen).to_have_url(re.compile("failure=agent_error"))
        expect(seen.locator(".matrix tbody tr")).to_have_count(1)
        expect(seen.get_by_role("combobox", name="Failure")).to_have_value("agent_error")
