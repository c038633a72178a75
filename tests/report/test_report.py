"""The report: the same numbers as everywhere, whole without network, safe with any text, fit for everybody."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from urllib.parse import unquote

import probes
import pytest
import scored
from stores import context, job, program, put, shell, table

from parallelhassnes.cli.app import app
from parallelhassnes.errors import UserError
from parallelhassnes.report import figures, page, spans, story
from parallelhassnes.report.gather import JobVerdict, Report, gather, heat
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import dimension, grouped, results
from parallelhassnes.steps.usage import UsageSum

A4 = 794
"""Pixels that a sheet of paper is wide in CSS."""
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> $x_{1}$ &amp; \" ' | `a` \\ [a](javascript:alert(3))"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported") / "root"
    root.mkdir()
    return scored.make(root)


@pytest.fixture(scope="module")
def report(store):
    return gather(store.ctx.layout, collect.choose(store.ctx.layout, experiment="nightly"))


def hostile(report: Report) -> Report:
    """The same results with text of the worst kind wherever a task, an agent or a model can put some."""
    rows = [
        replace(
            row,
            facts=replace(
                row.facts, agent=f"{HOSTILE} {row.agent}", task_name=HOSTILE + row.task, agent_version=HOSTILE
            ),
        )
        for row in report.rows
    ]
    found = grouped(rows, {name: dimension(name) for name in ("agent", "model")})
    groups = [
        group.model_copy(update={"message": HOSTILE, "failure_class": HOSTILE, "agents": [HOSTILE]})
        for group in report.errors.groups
    ]
    verdicts = [
        JobVerdict(
            each.batch_id,
            each.job_id,
            {
                **each.verdict,
                "task_quality": "broken",
                "primary_issue": HOSTILE,
                "reasons": [HOSTILE],
                "task": {"name": HOSTILE},
                "recommendations": [HOSTILE],
                "prose": {"engine": HOSTILE, "text": HOSTILE},
                "findings": [{"text": HOSTILE, "evidence": [f"steps/{HOSTILE}/attempts/x"], "analyses": []}],
            },
        )
        for each in report.verdicts
    ]
    return replace(
        report,
        title=HOSTILE,
        rows=tuple(rows),
        agents=(HOSTILE,) * len(report.agents),
        results=report.results.model_copy(update={"groups": found}),
        errors=report.errors.model_copy(update={"groups": groups}),
        verdicts=tuple(verdicts),
        tasks=tuple(line._replace(task=HOSTILE) for line in report.tasks),
        spans=tuple(span._replace(queue_key=HOSTILE) for span in report.spans),
        keys=tuple(key._replace(queue_key=HOSTILE) for key in report.keys),
        provenance=report.provenance._replace(tables={"b": HOSTILE}, agents=((HOSTILE, HOSTILE, HOSTILE),)),
    )


class Elements(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_has_the_numbers_of_the_results(store, report, tmp_path):
    text = page.html(report, page.Links(store.ctx.layout.root, tmp_path))
    elements = Elements(text)
    assert report.results.groups == results(store.ctx.layout, report.chosen).groups
    for group in report.results.groups:
        assert f"{group.passes}/{group.counted}" in elements.text
    assert "20 trials of 3 tasks by 4 agents: 19 scored" in elements.text
    assert "1 have no score, which is never counted as zero" in elements.text
    assert "the agent broke" in elements.text
    for meta in report.provenance.metas:
        assert meta.table_sha256 in elements.text
    assert sum(tag == "figure" for tag, _ in elements.tags) == 3


def test_the_page_needs_no_network_and_its_links_lead_to_files(store, report, tmp_path):
    elements = Elements(page.html(report, page.Links(store.ctx.layout.root, tmp_path)))
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in elements.tags}
    found = [attrs["href"] for tag, attrs in elements.tags if tag == "a"]
    assert len(found) > 10
    ids = {attrs["id"] for _, attrs in elements.tags if attrs.get("id")}
    for href in found:
        if href.startswith("#"):
            assert href[1:] in ids
        else:
            assert (tmp_path / unquote(href)).exists(), href


def test_no_text_becomes_markup(store, report, tmp_path):
    plain = Elements(page.html(report, page.Links(store.ctx.layout.root, tmp_path)))
    bad = Elements(page.html(hostile(report), page.Links(store.ctx.layout.root, tmp_path)))
    assert {tag for tag, _ in bad.tags} <= {tag for tag, _ in plain.tags} | {"h3", "ul", "li"}
    assert not any(name.startswith("on") for _, attrs in bad.tags for name in attrs)
    assert not any((attrs.get("href") or "").startswith("javascript") for _, attrs in bad.tags)
    assert bad.text.count("<script>alert(1)</script>") > 10
    markdown = story.markdown(hostile(report))
    assert not re.search(r"(?<!\\)<(?!/?sub>)", markdown)
    assert "[a](javascript" not in markdown


def test_pictures_have_the_pages_colours_and_ids_of_their_own(report):
    rates = [figures.Rate(HOSTILE, 0.5, 0.2, 0.8, cost_usd=cost) for cost in (0.0, 3.0)]
    pictures = [
        figures.leaderboard(rates),
        figures.cost_against_success(rates),
        figures.timeline(report.spans, [key.queue_key for key in report.keys]),
    ]
    ids = [name for text in pictures for name in re.findall(r' id="([^"]*)"', text)]
    assert len(ids) == len(set(ids))
    for text in pictures:
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == set()
        assert "<script" not in text
        for name in re.findall(r"url\(#([^)]*)\)", text):
            assert f'id="{name}"' in text


def test_each_span_is_in_order_and_as_long_as_its_attempt(report):
    assert {span.queue_key for span in report.spans} >= {"agent:oracle", "costly", "verdict"}
    for span in report.spans:
        assert list(span.times) == sorted(span.times)
    for key in report.keys:
        own = [span for span in report.spans if span.queue_key == key.queue_key]
        assert sum(key.totals) == pytest.approx(sum(s.times[-1] - s.times[0] for s in own))
    (oracle,) = [key for key in report.keys if key.queue_key == "agent:oracle"]
    assert oracle.attempts == 6
    assert all(oracle.totals[spans.PHASES.index(name)] > 0 for name in ("agent", "verifier"))


def test_a_broken_task_is_set_apart(store, report):
    broken = report.verdicts[0].verdict | {"task_quality": "broken"}
    assert report.trusted is None
    assert "broken" not in {each.quality for each in report.verdicts}
    text = story.markdown(replace(report, verdicts=(report.verdicts[0]._replace(verdict=broken),)))
    assert "Tasks to look at" in text


def test_the_command_writes_one_file_or_says_why_not(store, tmp_path):
    root = store.ctx.layout.root
    out = tmp_path / "r.html"
    said = scored.document(program(root, "report", store.second, "-o", str(out), "--json").stdout)
    assert (said["path"], said["batches"], said["format"]) == (str(out), [store.second], "html")
    assert store.second in out.read_text()
    with pytest.raises(UserError, match="/no/such/folder"):
        app(["report", store.first, "-o", "/no/such/folder/r.html", "--root", str(root)], standalone_mode=False)
    done = program(root, "report", store.first, "-E", "nightly", check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "both an id and --experiment are given" in done.stderr


def test_markdown_for_a_comment(store, capsys):
    root = store.ctx.layout.root
    app(["report", "-E", "nightly", "--markdown", "--root", str(root)], standalone_mode=False)
    text = capsys.readouterr().out
    assert "| ScriptedAgent |" in text
    assert "the agent broke" in text
    assert len(text) < 8000


def test_names_that_are_alike_when_cut_are_told_apart():
    long = [f"agent · organisation/a-model-with-a-very-long-name-preview-{day:02d}" for day in range(30)]
    cut = [f"{'x' * 30}{place}{'y' * 30}" for place in range(3)]
    for names in (long, cut, ["a", "b"]):
        shown = figures.told_apart(names)
        assert len(set(shown)) == len(names)
        assert max(map(len, shown)) <= figures.NAME_LENGTH + 4
    assert figures.told_apart(["a", "b"]) == ["a", "b"]


def test_points_at_one_spot_show_all_their_numbers():
    rates = [figures.Rate(str(cost), 1.0, 0.5, 1.0, cost_usd=cost) for cost in (1.0, 1.0, 2.0)]
    text = figures.cost_against_success(rates)
    assert figures.together([(0.5, 1.0), (0.5, 1.0), (1.0, 1.0)]) == [[0, 1], [2]]
    assert "1, 2" in text
    many = figures.cost_against_success([figures.Rate("x", 0.0, 0.0, 0.5, cost_usd=0.0)] * 9)
    assert "1, 2, 3, 4 +5" in many


def luminance(colour: str) -> float:
    """Of sRGB as WCAG 2 has it, from 0 to 1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_shades_and_areas_are_told_apart_without_colour():
    """Each step of the heat map is darker (on dark paper brighter) than the one before; phases differ so or by their hatch."""
    style = (Path(page.__file__).parent / "style.css.j2").read_text()
    light, dark = (
        {name: luminance(value) for name, value in re.findall(r"--(\w+): (#[0-9a-f]{6})", block)}
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    for look, sign in ((light, -1), (dark, 1)):
        steps = [look[f"h{step}"] for step in range(page.STEPS_OF_SHADE + 1)]
        # Of neighbours the contrast (L + 0.05) / (L + 0.05) is at least 1.15.
        assert all(((b + 0.05) / (a + 0.05)) ** sign > 1.15 for a, b in pairwise(steps))
        for one, other in combinations(range(len(spans.PHASES)), 2):
            bright, dim = sorted((look[f"phase{one}"], look[f"phase{other}"]), reverse=True)
            hatches = figures.PHASE_HATCHES[one], figures.PHASE_HATCHES[other]
            assert hatches[0] != hatches[1] or (bright + 0.05) / (dim + 0.05) > 3


def alone(report: Report, rows: list, agents: list[str]) -> Report:
    """The report with these trials, and nothing that is not about them."""
    found = grouped(rows, {name: dimension(name) for name in ("agent", "model")})
    shown, tasks = heat(rows, report.verdicts)
    assert list(shown) == agents
    return replace(
        report,
        rows=tuple(rows),
        agents=shown,
        tasks=tasks,
        trusted=None,
        results=report.results.model_copy(update={"groups": found}),
    )


def odd_reports(report: Report) -> dict[str, Report]:
    """Reports with little in them, or much."""
    first, *_ = report.rows
    unscored = replace(first, facts=replace(first.facts, result="unscored", reward=None, rewards={}, passed=None))
    models = [f"organisation-with-a-long-name/a-model-with-a-very-long-name-preview-{day:02d}" for day in range(30)]
    many = [
        replace(first, facts=replace(first.facts, agent="agent", model=model, spent=UsageSum(1.0, 1)))
        for model in models
    ]
    none = alone(report, [], [])
    return {
        "none": replace(none, verdicts=(), spans=(), keys=()),
        "one": alone(report, [first], ["oracle"]),
        "unscored": alone(report, [unscored, unscored], ["oracle"]),
        "many": alone(report, many, [f"agent · {model}" for model in models]),
    }


def test_reports_with_little_in_them(store, report, tmp_path):
    texts = {
        name: Elements(page.html(shown, page.Links(store.ctx.layout.root, tmp_path))).text
        for name, shown in odd_reports(report).items()
    }
    assert "There are no trials." in texts["none"]
    assert "No trial is scored." in texts["none"]
    assert "No trial is scored." in texts["unscored"]
    assert "2 have no score" in texts["unscored"]
    assert "1 trial of 1 task by 1 agent: 1 scored, 1 passed." in texts["one"]
    for shown in odd_reports(report).values():
        story.markdown(shown)


def test_a_batch_without_trials_and_one_that_has_not_begun(root, tmp_path):
    """From the store: what the reports above are made of may be missing, too."""
    ctx = context(root)
    batch = put(
        ctx,
        table(
            job("j", shell("s", "echo '<b>&|' >&2; exit 3")), batch_goal_summary="<i>|</i>", retry={"max_attempts": 1}
        ),
    )
    for _ in ("before", "after"):
        for ending in ("html", "md"):
            out = tmp_path / f"r.{ending}"
            markdown = ["--markdown"] if ending == "md" else []
            app(["report", batch, "-o", str(out), *markdown, "--root", str(root)], standalone_mode=False)
            text = out.read_text()
            assert "There are no trials." in text
            assert not {"b", "i"} & {tag for tag, _ in Elements(text).tags}
        program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    assert "&lt;b&gt;" in (tmp_path / "r.html").read_text()


def test_no_agent_is_called_better_than_what_the_trials_show(report):
    def said(*rates: float, width: float = 0.0, **others: float) -> str:
        named = {**{f"agent{n}": rate for n, rate in enumerate(rates)}, **others}
        group = report.results.groups[0]
        groups = [
            group.model_copy(
                update={
                    "key": {"agent": name},
                    "pass_rate": rate,
                    "pass_rate_low": max(0.0, rate - width),
                    "pass_rate_high": min(1.0, rate + width),
                }
            )
            for name, rate in named.items()
        ]
        return " ".join(story.sentences(replace(report, results=report.results.model_copy(update={"groups": groups}))))

    assert "No agent passed anything." in said(0.0, 0.0)
    assert "agent0 has a pass rate of 50 %" in said(0.5)
    assert "agent1 has the highest pass rate: 50 %" in said(0.2, 0.5)
    assert "overlap" not in said(0.2, 0.5)
    same = said(0.12, 0.12, 0.05)
    assert "agent0 and agent1 have the same pass rate: 12 %" in same
    assert "highest" not in same
    assert "overlap with it, so which is better is not shown" in said(0.4, 0.5, width=0.2)
    assert "nop, which does nothing, passes as much: 12 %" in said(0.12, nop=0.12)
    assert "and the intervals overlap" in said(0.5, width=0.2, nop=0.4)
    assert "nop" not in said(0.5, nop=0.0)


@pytest.mark.browser
def test_the_page_in_a_browser_light_dark_and_narrow(store, report, tmp_path):
    """Nothing is loaded, nothing runs, nothing is refused, and axe-core finds nothing, whatever the texts."""
    from playwright.sync_api import sync_playwright

    folder = tmp_path / "pages"
    folder.mkdir()
    odd = {f"odd-{name}": shown for name, shown in odd_reports(report).items()}
    for name, shown in {"plain": report, "hostile": hostile(report), **odd}.items():
        (folder / f"{name}.html").write_text(page.html(shown, page.Links(store.ctx.layout.root, folder)))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=probes.chromium(), args=["--no-sandbox"])
        for name, scheme, width in (
            ("plain", "light", 1200),
            ("plain", "dark", 1200),
            ("hostile", "light", 390),
            ("hostile", "dark", 390),
        ):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            look(context, folder / f"{name}.html")
            context.close()
        for name in ("hostile", *odd):
            for media, width in (("screen", 390), ("print", A4)):
                context = browser.new_context(viewport={"width": width, "height": 800})
                tab = context.new_page()
                tab.emulate_media(media=media)
                tab.goto((folder / f"{name}.html").as_uri())
                assert wider(tab) <= 0, (name, media)
                context.close()
        browser.close()


def look(context, path: Path) -> None:
    requests, trouble = [], []
    tab = context.new_page()
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    tab.goto(path.as_uri())
    assert requests == [path.as_uri()]
    assert wider(tab) <= 0, f"{path.name} is {wider(tab)} px wider than its window"
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    tab.evaluate(probes.axe().read_text())
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found] == []
    assert trouble == []


def wider(tab) -> int:
    """By how many pixels the page is wider than its window."""
    return tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
