"""Names: what becomes a file name is safe, and no two things get the same one."""

import re
import string
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.errors import UserError
from parallelhassnes.key_names import (
    KEY_RULES,
    agent_key,
    key_dir,
    key_from_dir,
    key_rules_markdown,
    normalise_queue_key,
    queue_key,
)
from parallelhassnes.names import (
    Ids,
    attempt_name,
    check_id,
    edits,
    is_safe_id,
    nearest,
    new_batch_id,
    new_run_id,
    safe_id,
)

PAGE = Path(__file__).parent.parent / "docs" / "queue-keys.md"

TEXTS = st.text(min_size=1, max_size=60)
KEYLIKE = st.text(alphabet=string.ascii_letters + string.digits + "-_./:@ éβ+", min_size=1, max_size=60)
FAMILIES = st.sampled_from(
    [
        "claude-",
        "gpt-",
        "o3",
        "gemini/",
        "vertex_ai/",
        "models/",
        "-latest",
        "@20250101",
        "openai/",
        "-2025-01-01",
        "bedrock/",
        "anthropic.",
        "grok-",
        "mistral",
        "deepseek",
        "/",
        ":",
        "-",
        "4.5",
    ]
)
MADE_OF_RULES = st.lists(FAMILIES, min_size=1, max_size=7).map("".join)


@pytest.mark.parametrize("good", ["a", "A.b_c-9", "-x", "_", "x" * 128, "1"])
def test_safe_ids(good: str) -> None:
    assert is_safe_id(good)
    assert check_id(good, "job id") == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../x",
        "/etc",
        "a/b",
        "a b",
        "a\n",
        "a\0",
        "é",
        "x" * 129,
        "a:b",
        3,
        None,
        True,
        ["a"],
        "a\\b",
    ],
)
def test_unsafe_ids(bad: object) -> None:
    assert not is_safe_id(bad)
    with pytest.raises(UserError, match="job id"):
        check_id(bad, "job id")


@given(TEXTS, st.sets(TEXTS, max_size=5))
def test_safe_id_is_safe_and_new(text: str, taken: set[str]) -> None:
    first = safe_id(text)
    assert is_safe_id(first)
    assert first == safe_id(text)
    assert safe_id(text, Ids(taken | {first})) not in Ids(taken | {first})


def test_safe_id_of_task_names() -> None:
    assert safe_id("org/name") == "org-name"
    assert safe_id("org/name", Ids({"org-name", "org-name-2"})) == "org-name-3"
    assert safe_id("x" * 300) != safe_id("x" * 301)
    assert safe_id("日本") != safe_id("本日")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Job", "job"),
        ("JOB.x", "job.X"),
        ("job", "job."),
        ("job", "job.. ."),
        ("caf\u00e9", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
        ("\u212b", "\u00c5"),
        ("\ufb01x", "fix"),
    ],
)
def test_names_that_some_file_system_takes_for_one(one: str, other: str) -> None:
    taken = Ids([one])
    assert other in taken
    assert taken.like(other) == one
    assert safe_id(other, taken) not in taken


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a.b", "a-b"), ("a.", "b."), ("a1", "a")])
def test_names_that_are_two_everywhere(one: str, other: str) -> None:
    assert other not in Ids([one])


def test_batch_ids_sort_by_time_and_read_as_utc() -> None:
    noon = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    ids = [new_batch_id(noon + timedelta(milliseconds=2 * n)) for n in range(2000)]
    assert ids == sorted(ids)
    assert re.fullmatch(r"20261121T120000Z-[a-z2-7]{8}", ids[0])
    assert new_batch_id(noon.astimezone(timezone(timedelta(hours=9)))).startswith("20261121T120000Z")
    assert is_safe_id(new_batch_id())


def test_run_ids_and_attempt_names() -> None:
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[a-z0-9]{12}", run_id) for run_id in ids)
    when = datetime(2026, 11, 21, 1, 36, 45, tzinfo=UTC)
    assert attempt_name("abc", when) == "20261121T013645Z_abc"


def test_nearest() -> None:
    assert nearest("depend_on", ["depends_on", "env"]) == "depends_on"
    assert nearest("Docker", ["docker", "podman"]) == "docker"
    assert nearest("zzz", ["docker"]) is None
    assert nearest("n_trails", ["n_tasks", "n_valid", "n_trials"]) == "n_trials"
    assert nearest("n_trails", ["n_trials", "n_tasks"]) == "n_trials"


def test_two_letters_that_changed_places_are_one_edit() -> None:
    for one, other, count in (("", "ab", 2), ("ab", "ba", 1), ("trails", "trials", 1), ("ca", "abc", 3), ("a", "a", 0)):
        assert edits(one, other) == edits(other, one) == count


def test_user_aliases_win_and_are_final() -> None:
    aliases = {"my/model": "openai/gpt-5.2", "anthropic/claude-*": "Claude Pool", "gpt-4o": "other"}
    assert normalise_queue_key("My/Model", aliases) == "openai/gpt-5.2"
    assert normalise_queue_key("claude-sonnet-4-5", aliases) == "claude-pool"
    assert normalise_queue_key("gpt-4o", aliases) == "other"
    assert queue_key("openai", "gpt-5.2") == queue_key(None, "openai/gpt-5.2") == "openai/gpt-5.2"
    assert queue_key("openai", "openai/gpt-5.2") == "openai/gpt-5.2"


def test_agents_have_keys_of_their_own() -> None:
    assert agent_key("oracle") == "agent:oracle"
    assert normalise_queue_key(agent_key("gpt-4o")) == "agent:gpt-4o"
    assert agent_key("pkg.mod:My_Agent") == "agent:pkg.mod:my-agent"


@pytest.mark.parametrize("text", ["", " ", "/", "::", "..", "-", "x" * 2000])
def test_what_is_no_key_at_all(text: str) -> None:
    with pytest.raises(UserError):
        normalise_queue_key(text)


@given(st.one_of(TEXTS, KEYLIKE, MADE_OF_RULES), st.dictionaries(KEYLIKE, KEYLIKE, max_size=3))
def test_normalising_twice_changes_nothing(text: str, aliases: dict[str, str]) -> None:
    for table in ({}, aliases):
        try:
            once = normalise_queue_key(text, table)
        except UserError:
            continue
        assert normalise_queue_key(once, table) == once


@given(st.one_of(TEXTS, KEYLIKE, MADE_OF_RULES), st.one_of(TEXTS, KEYLIKE))
def test_key_dirs_are_safe_injective_and_read_back(first: str, second: str) -> None:
    names = {}
    for text in (first, second):
        try:
            key = normalise_queue_key(text)
        except UserError:
            continue
        name = key_dir(key)
        assert is_safe_id(name)
        assert name == name.lower()
        if len(name) < 120:
            assert key_from_dir(name) == key
        assert names.setdefault(name, key) == key


@given(TEXTS)
def test_a_strange_folder_name_is_refused_or_read_back(name: str) -> None:
    try:
        key = key_from_dir(name)
    except UserError:
        return
    assert key_dir(key) == name


def test_key_dirs_by_example() -> None:
    assert key_dir("agent:oracle") == "agent_oracle"
    assert key_dir("openai/gpt-5.2") == "openai__gpt-5.2"
    assert key_dir("bedrock/global.anthropic.claude-v1:0") == "bedrock__global.anthropic.claude-v1_0"
    assert key_dir("a:@b") == "a__-40-b"
    assert key_from_dir("a__-40-b") == "a:@b"
    long = "p/" + "m" * 400
    assert len(key_dir(long)) <= 128
    assert key_dir(long) != key_dir(long + "m")
    with pytest.raises(UserError):
        key_from_dir(key_dir(long))
    with pytest.raises(UserError, match="not a normalised"):
        key_dir("OpenAI/x")


def test_the_page_holds_the_table_of_the_code() -> None:
    assert key_rules_markdown() in PAGE.read_text(encoding="utf-8")
    assert all(rule.why for rule in KEY_RULES)


def test_the_examples_of_the_page_are_true() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 25
    for written, key, folder in rows:
        assert normalise_queue_key(written) == key
        assert key_dir(key) == folder
