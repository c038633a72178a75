"""The pages in a real browser, over a real server: what a team does on them, and everybody's access to it."""

import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from browsers import accessibility_problems, page, running
from playwright.sync_api import Page, expect
from servers import Server, kept_port, serving, token
from stores import CHECKOUT, command, context, job, program, put, shell, states, table, wait_for

from parallelhassnes.store.evidence import ledger

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running(tmp_path_factory.mktemp("home")) as found:
        yield found


def operated(shown: Page, label: str, button: str = "", within: str = "body") -> None:
    """Open an operator's form and send it."""
    acts = shown.locator(f"{within} details.act")
    act = acts.filter(has=shown.get_by_text(label, exact=True)).first
    act.locator("summary").click()
    act.get_by_role("button", name=button or label, exact=True).click()


def test_submit_watch_read_the_log_of_a_failure_retry_and_see_it_pass(browser, root: Path):
    context(root)
    gate = root / "gate"
    text = table(
        job(
            "mended",
            shell(
                "s",
                f"echo looking for {gate.name}; test -e {gate} || {{ echo 'no gate yet' >&2; exit 7; }}",
                retry={"max_attempts": 1},
            ),
        ),
        job("fine", command("s", "true")),
        experiment="from the page",
    ).decode()
    with serving(root) as server, page(browser, server.url) as shown:
        shown.goto("/")
        expect(shown.get_by_text("There is no batch yet.")).to_be_visible()
        shown.get_by_role("link", name="Submit", exact=True).click()
        shown.get_by_label(re.compile("JSON or YAML")).fill(text)
        shown.get_by_role("button", name="Show what it would run", exact=True).click()
        expect(shown.get_by_role("heading", name="It would run 2 jobs, 2 steps")).to_be_visible()
        shown.get_by_role("button", name="Submit it").click()
        expect(shown).to_have_url(re.compile("/batches/"))
        # Nobody touches the page from here on: it tells by itself.
        expect(shown.locator("h1 .state")).to_have_text("needs attention")
        expect(shown.get_by_role("heading", name=re.compile("Failures 1"))).to_be_visible()
        shown.locator("section[aria-labelledby=failures]").get_by_role("link", name="mended/s").click()
        expect(shown.locator("[data-lines]")).to_contain_text("no gate yet")
        expect(shown.locator(".notice.bad")).to_contain_text("exit code 7")
        gate.touch()
        operated(shown, "Retry")
        expect(shown.get_by_role("status")).to_contain_text("1 step of")
        second = shown.locator(".history li").nth(1)
        expect(second.locator(".state")).to_have_text("succeeded")
        second.get_by_role("link").click()
        expect(shown.locator("h1")).to_contain_text("attempt 2")
        expect(shown.locator("[data-lines]")).to_contain_text("looking for gate")
        shown.locator(".crumbs").get_by_role("link").nth(1).click()
        expect(shown.locator("h1 .state")).to_have_text("done")


def test_a_token_logs_in_and_stands_in_the_ledger(browser, root: Path):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", command("s", "true"))))
    given = token(root, "ann", "operate")
    with serving(root, "--auth", "token", "--no-tick") as server, page(browser, server.url) as shown:
        shown.goto(f"/batches/{batch_id}")
        assert accessibility_problems(shown) == []
        shown.get_by_label("Token").fill("wrong")
        shown.get_by_role("button", name="Log in").click()
        expect(shown.get_by_role("alert").first).to_contain_text("unknown token")
        shown.get_by_label("Token").fill(given)
        shown.get_by_role("button", name="Log in").click()
        expect(shown).to_have_url(f"{server.url}/batches/{batch_id}")
        operated(shown, "Pause")
        expect(shown.get_by_role("status")).to_contain_text("is paused")
        expect(shown.locator("section[aria-labelledby=words]")).to_contain_text("token:ann paused it")
        shown.get_by_role("status").get_by_role("button", name="Resume").click()
        expect(shown.get_by_role("status")).to_contain_text("goes on")
        shown.get_by_role("button", name="Log out").click()
        expect(shown).to_have_url(re.compile("/login"))


def test_limits_runners_priority_and_cancel(browser, root: Path):
    ctx = context(root, "[limits]\nslow = 2\n")
    batch_id = put(ctx, table(job("j", command("s", "true", queue_key="slow"))))
    with serving(root, "--no-tick") as server, page(browser, server.url) as shown:
        shown.goto("/operate")
        card = shown.locator("#k-slow")
        card.locator("summary").filter(has_text="Limit").click()
        card.get_by_label("At most").fill("1")
        card.get_by_role("button", name="Limit").click()
        expect(shown.locator("#k-slow")).to_contain_text("limit 1")
        shown.get_by_role("button", name="Undo: the earlier limit").click()
        expect(shown.locator("#k-slow")).to_contain_text("limit 2")
        shown.goto(f"/batches/{batch_id}")
        operated(shown, "Cancel", "Cancel the batch")
        expect(shown.locator("h1 .state")).to_have_text("canceled")
        shown.get_by_role("button", name="Undo: run again what was canceled").click()
        expect(shown.locator("h1 .state")).to_have_text("waiting")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_person_approves_and_rejects_what_waits_for_them(browser, root: Path, scripts):
    ctx = context(root)
    gated = {"depends_on": ["build"], "gate": "human"}
    batch_id = put(
        ctx,
        table(*(job(name, shell("build", "true"), shell("publish", "true", **gated)) for name in ("a", "b", "c", "d"))),
    )
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    given = token(root, "ann", "operate")
    with serving(root, "--auth", "token") as server, page(browser, server.url, java_script_enabled=scripts) as shown:
        shown.goto(f"/batches/{batch_id}")
        shown.get_by_label("Token").fill(given)
        shown.get_by_role("button", name="Log in").click()
        waiting = shown.locator("section[aria-labelledby=gates]")
        expect(waiting.get_by_role("heading", name="Waiting for a person 4")).to_be_visible()
        operated(shown, "Approve", within="[id='g-a/publish']")
        expect(shown.get_by_role("status")).to_contain_text("1 step approved")
        second = waiting.locator("[id='g-b/publish']")
        second.locator("summary").filter(has_text="Reject").click()
        second.get_by_role("button", name="Reject").click()
        expect(second.locator("input:invalid")).to_be_focused()  # no reason, so nothing is sent
        second.get_by_role("textbox").last.fill("not on a Friday")
        second.get_by_role("button", name="Reject").click()
        expect(shown.get_by_role("status")).to_contain_text("1 step rejected")
        expect(shown.locator("section[aria-labelledby=words]")).to_contain_text("not on a Friday")
        shown.get_by_role("button", name="Undo: approve instead").click()
        expect(shown.get_by_role("status")).to_contain_text("1 step approved")
        shown.goto(f"/batches/{batch_id}/steps?job=c")
        operated(shown, "Approve", within="[id='g-c/publish']")
        expect(shown).to_have_url(re.compile("job=c"))
        expect(shown.get_by_role("status")).to_contain_text("1 step approved")
    wait_for(lambda: succeeded_in(ctx, batch_id) == {"a": 2, "b": 2, "c": 2, "d": 1}, "what is approved")
    said = [event for _, event in ledger.read(ctx.layout.batch(batch_id)) if "reason" in event]
    assert [(event["event"], event["by"]) for event in said] == [("rejected", "token:ann")]


def succeeded_in(ctx, batch_id: str) -> dict[str, int]:
    """Job → its attempts that have succeeded."""
    return dict(
        Counter(step.partition("/")[0] for step, found in states(ctx, batch_id).items() if found == ["succeeded"])
    )


def test_budgets_are_raised_where_they_are_shown_and_taken_back(browser, root: Path):
    ctx = context(root, "[budgets.keys.slow]\nusd = 5\ntokens = 7000\n[budgets.experiments.e]\nusd = 1\n")
    jobs = job("j", command("s", "true", queue_key="slow"))
    batch_id = put(ctx, table(jobs, experiment="e", budget={"usd": 2.5}))
    with serving(root, "--no-tick") as server, page(browser, server.url) as shown:
        shown.goto("/")
        expect(shown.locator("section[aria-labelledby=queue]")).to_contain_text("$0.00 of $5.00")
        shown.locator(f"a[href='/batches/{batch_id}']").click()
        expect(shown.locator(".facts")).to_contain_text("$0.00 of $2.50")
        act = shown.locator("details.act").filter(has=shown.get_by_text("Budget", exact=True))
        act.locator("summary").click()
        act.get_by_label("USD in all").fill("4")
        act.get_by_label("Reason").fill("one more try")
        act.get_by_role("button", name="Set the budget").click()
        expect(shown.locator(".facts")).to_contain_text("$0.00 of $4.00")
        words = shown.locator("section[aria-labelledby=words]")
        expect(words).to_contain_text("changed the budget of it: 4.00 USD one more try")
        shown.get_by_role("button", name="Undo: the earlier budget").click()
        expect(shown.locator(".facts")).to_contain_text("$0.00 of $2.50")
        operated(shown, "Budget of e", "Set the budget")
        expect(shown.get_by_role("status")).to_contain_text("e has a new budget")
        shown.goto("/operate")
        card = shown.locator("#m-key-slow")
        card.locator("summary").click()
        card.get_by_label("Tokens in all").fill("9000")
        card.get_by_role("button", name="Set the budget").click()
        expect(shown.locator("#m-key-slow")).to_contain_text("of 9000 tokens")
        expect(shown.locator("#m-key-slow")).to_contain_text("$0.00 of $5.00")
        assert accessibility_problems(shown) == []


def test_mistakes_of_a_table_stand_at_their_lines(browser, root: Path):
    context(root)
    with serving(root, "--no-tick") as server, page(browser, server.url) as shown:
        shown.goto("/submit")
        shown.get_by_label(re.compile("JSON or YAML")).fill(
            'jobs:\n  - job_id: a\n    stepz: []\n    steps:\n      - command: ["true"]\n'
        )
        shown.get_by_role("button", name="Show what it would run", exact=True).click()
        expect(shown.locator(".problem")).to_contain_text("line 3 unknown key 'stepz'")
        assert accessibility_problems(shown) == []
        shown.get_by_label("Task folders").fill("nowhere")
        shown.get_by_role("button", name="Show the table and what it would run").click()
        expect(shown.get_by_role("heading", name="This table cannot run yet")).to_be_visible()


def test_an_uploaded_task_is_named_in_the_form_that_makes_a_table(browser, root: Path):
    context(root, 'environment = "sandbox"\n')
    archive = shutil.make_archive(str(root / "hello"), "zip", CHECKOUT / "examples" / "tasks", "hello")
    with serving(root, "--no-tick") as server, page(browser, server.url) as shown:
        shown.goto("/submit")
        shown.get_by_label(re.compile("zip or tar")).set_input_files(archive)
        shown.get_by_role("button", name="Upload").click()
        expect(shown.get_by_role("status")).to_contain_text("1 task stored")
        expect(shown.get_by_label("Task folders")).to_have_value(re.compile("runs/_tasks/"))
        shown.get_by_label("Agent 1").fill("oracle")
        shown.get_by_label("Trials each").fill("3")
        shown.get_by_role("button", name="Show the table and what it would run").click()
        expect(shown.get_by_role("heading", name="It would run 1 job, 4 steps")).to_be_visible()
        assert accessibility_problems(shown) == []
        shown.get_by_role("button", name="Submit it").click()
        expect(shown.locator("h1 .state")).to_have_text("waiting")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A server over a batch with every kind of end, whose names and logs are HTML."""
    root = tmp_path_factory.mktemp("ended")
    ctx = context(root)
    evil = "<script>alert(1)</script>"
    script = f"echo '{evil}'; echo '\"><img src=x onerror=alert(2)>'; seq 1 30000; printf '\\033[1;32mgreen\\033[0m end\\n'; exit 4"
    batch_id = put(
        ctx,
        table(
            job("bad", shell("s", script, retry={"max_attempts": 1}), command("after", "true", depends_on=["s"])),
            job("good", command("s", "true")),
            job("other", command("s", "true")),
            *(
                job(f"asks{n}", command("s", "true"), command("t", "true", depends_on=["s"], gate="human"))
                for n in (1, 2)
            ),
            experiment=evil,
            batch_goal_summary=evil,
            labels={"<b>": evil},
        ),
    )
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    with serving(root, "--no-tick") as server:
        yield server, batch_id


def pages_of(server: Server, batch_id: str) -> list[str]:
    attempt = server.client.get(f"/attempts/{batch_id}/bad/s", follow_redirects=True).url.path
    parts = ("log", "report", "trajectory", "analysis", "files", "ledger")
    return [
        "/",
        "/?show=trouble",
        "/?q=nothing",
        f"/batches/{batch_id}",
        f"/batches/{batch_id}/steps",
        f"/batches/{batch_id}/steps?job=bad",
        f"/batches/{batch_id}/steps?gated=1",
        "/submit",
        "/operate",
        "/login",
        "/batches/unknown",
        f"{attempt}/search?file=stdout.log&q=onerror",
        *(f"{attempt}?part={part}" for part in parts),
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_nothing_and_nothing_of_others_runs(browser, ended, look):
    server, batch_id = ended
    options = {"viewport": PHONE} if look == "phone" else {"color_scheme": look}
    with page(browser, server.url, bypass_csp=True, **options) as shown:
        for address in pages_of(server, batch_id):
            shown.goto(address)
            assert accessibility_problems(shown) == [], address
            wide = shown.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{address} is {wide} px too wide"


def test_without_scripts_everything_can_be_read(browser, ended):
    server, batch_id = ended
    with page(browser, server.url, java_script_enabled=False) as shown:
        shown.goto("/")
        shown.locator(f"a[href='/batches/{batch_id}']").click()
        shown.locator("section[aria-labelledby=failures]").get_by_role("link").first.click()
        shown.get_by_label("File").select_option("stdout.log")
        shown.get_by_role("button", name="Show").click()
        expect(shown.locator("[data-lines]")).to_contain_text("green end")
        shown.get_by_role("link", name="Earlier").click()
        expect(shown.locator("[data-lines]")).not_to_contain_text("green end")
        shown.get_by_role("link", name="Start", exact=True).click()
        expect(shown.locator("#L1")).to_contain_text("<script>alert(1)</script>")
        expect(shown.locator("time").first).to_contain_text("UTC")


def test_a_command_is_copied(browser, ended):
    server, batch_id = ended
    with page(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as shown:
        shown.goto(f"/attempts/{batch_id}/bad/s")
        shown.get_by_text("Do it again from a shell").click()
        shown.get_by_role("button", name="Copy").first.click()
        expect(shown.get_by_role("button", name="Copied")).to_be_visible()
        assert shown.evaluate("navigator.clipboard.readText()").startswith(f"parallelhassnes retry {batch_id}/bad/s ")


def test_a_long_log_is_read_in_windows_and_searched(browser, ended):
    server, batch_id = ended
    attempt = server.client.get(f"/attempts/{batch_id}/bad/s", follow_redirects=True).url.path
    with page(browser, server.url) as shown:
        shown.goto(f"{attempt}?file=stdout.log")
        expect(shown.locator(".t-bold.t-fg2")).to_have_text("green")
        count = "document.querySelectorAll('.ln').length"
        before = shown.evaluate(count)
        to_the_top = "document.querySelector('[data-lines]').scrollTop = 0"
        wait_for(lambda: shown.evaluate(f"{to_the_top}, {count} > {before}"), "the lines before it")
        for _ in range(40):
            shown.evaluate(to_the_top)
            shown.wait_for_timeout(50)
        expect(shown.locator("[data-foot]")).to_contain_text("bytes before this")
        assert shown.evaluate(count) <= 4000
        numbers = shown.evaluate("[...document.querySelectorAll('.ln')].map((l) => Number(l.id.slice(1)))")
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        shown.get_by_label("Find").fill("12345")
        shown.get_by_role("button", name="Find").click()
        expect(shown.get_by_role("heading", level=1)).to_contain_text("1 line")
        shown.get_by_role("link", name="line 12347").click()
        expect(shown.locator("#L12347")).to_have_class(re.compile("at"))
        expect(shown.locator("#L12347")).to_be_in_viewport()


def test_keys_go_from_row_to_row_and_open(browser, ended):
    server, batch_id = ended
    with page(browser, server.url) as shown:
        shown.goto(f"/batches/{batch_id}")
        rows = shown.locator("[data-row]")
        focused = "document.activeElement.closest('[data-row]')?.id"
        shown.keyboard.press("j")
        assert shown.evaluate(focused) == rows.first.get_attribute("id")
        shown.keyboard.press("j")
        second = shown.evaluate(focused)
        shown.keyboard.press("j")
        shown.keyboard.press("k")
        assert shown.evaluate(focused) == second
        shown.keyboard.press("/")
        assert shown.evaluate("document.activeElement.type") == "search"
        shown.goto("/")
        shown.keyboard.press("j")
        shown.keyboard.press("Enter")
        expect(shown).to_have_url(f"{server.url}/batches/{batch_id}")


def test_an_attempt_leads_to_its_neighbours_in_the_list_that_it_was_opened_from(browser, ended):
    server, batch_id = ended
    with page(browser, server.url) as shown:
        beside = shown.get_by_role("navigation", name="Beside it in the list")

        def pressed(key: str) -> None:
            expect(shown.locator("#beside-keys")).to_be_visible()  # scripts are there
            shown.keyboard.press(key)

        shown.goto(f"/batches/{batch_id}/steps?state=succeeded")
        shown.get_by_role("link", name="good/s").click()
        expect(beside).to_contain_text("1 of 4 steps, succeeded")
        expect(beside.get_by_role("link", name="Previous")).to_have_count(0)
        shown.get_by_role("link", name="Ledger", exact=True).click()
        expect(shown).to_have_url(re.compile("/good/s/.*part=ledger"))
        pressed("ArrowRight")
        expect(shown).to_have_url(re.compile("/other/s/.*part=ledger"))
        expect(beside).to_contain_text("2 of 4 steps, succeeded")
        beside.get_by_role("link", name="Next").click()
        expect(beside).to_contain_text("3 of 4 steps")
        pressed("ArrowLeft")
        expect(beside).to_contain_text("2 of 4 steps")
        beside.get_by_role("link", name="succeeded").click()
        expect(shown.get_by_role("heading", name="4 steps")).to_be_visible()
        shown.goto(f"/attempts/{batch_id}/bad/s?part=log")
        expect(beside).to_contain_text("1 of 5 commands")
        shown.get_by_label("Find").press("ArrowRight")
        expect(beside).to_contain_text("1 of 5 commands")
        shown.goto(f"/batches/{batch_id}")
        shown.locator("section[aria-labelledby=failures]").get_by_role("link").first.click()
        expect(shown.locator("h1")).to_contain_text("attempt 1")
        expect(beside).to_have_count(0)  # nothing else has failed so


def test_times_are_the_readers_and_exact_when_pointed_at(browser, ended):
    server, batch_id = ended
    with page(browser, server.url, timezone_id="Asia/Tokyo", locale="en-GB") as shown:
        shown.goto(f"/batches/{batch_id}")
        found = shown.locator("time").first
        expect(found).to_have_text(re.compile(r"\d+ (s|min) ago"))
        assert re.search(r"GMT\+9.*\(20\d\d-\d\d-\d\dT.*Z\)", found.get_attribute("title"))


def test_a_server_that_is_gone_is_said_and_its_return_too(browser, root: Path):
    context(root)
    with kept_port() as port, page(browser, "http://127.0.0.1") as shown:
        with serving(root, "--no-tick", "--port", port) as server:
            shown.goto(server.url)
            expect(shown.locator("#live")).to_have_text("live")
            server.end(signal.SIGKILL)
        expect(shown.get_by_role("alert")).to_contain_text("The server does not answer")
        with serving(root, "--no-tick", "--port", port):
            expect(shown.locator("#live")).to_have_text("live")
            expect(shown.locator("#gone")).to_be_hidden()
