"""The Python client that Harbor has for its own server since 0.26, against ours: ``make test-harbor`` has that Harbor."""

import uuid
from importlib.util import find_spec

import pytest
from api_checks import is_problem
from harness import make_task
from servers import serving, token
from stores import SUPPORT, context, idle, program, wait_for

pytestmark = pytest.mark.harbor
TEMP = "temp_environment:TempEnvironment"


def config(root, *agents):
    return {
        "job_name": "nightly",
        "tasks": [{"path": str(root.parent / "hello")}],
        "agents": [{"name": name} for name in agents],
        "environment": {"import_path": TEMP},
    }


def test_what_has_no_counterpart_or_is_not_there_is_said(root):
    make_task(root.parent)
    with serving(root, "--no-tick", env=SUPPORT) as server:
        for path in (f"jobs/{uuid.uuid4()}", f"rollouts/{uuid.uuid4()}", "query/schema", "download?uri=x"):
            is_problem(server.client.get(f"/harbor/{path}"), 404)
        is_problem(server.client.get("/harbor/jobs", params={"nonsense": 1}), 422)
        is_problem(server.client.post("/harbor/jobs/submit", json={"config": config(root, "orcale")}), 422)
        sent = {"config": config(root, "oracle"), "relay_inference": True}
        is_problem(server.client.post("/harbor/jobs/submit", json=sent), 422)
        made = server.client.post("/harbor/jobs/submit", json={"config": config(root, "oracle")}).json()["job_id"]
        assert server.client.get(f"/harbor/jobs/{made}").json()["job"]["state"] == "queued"
        (rollout,) = server.client.get("/harbor/rollouts").json()["items"]
        is_problem(server.client.get(f"/harbor/rollouts/{rollout['id']}"), 404)
        assert server.client.post(f"/harbor/jobs/{made}/pause").json()["job"]["rollouts"]["n_paused"] == 1
        assert server.client.get("/harbor/rollouts", params={"state": "paused"}).json()["total"] == 1


if find_spec("harbor.client"):

    @pytest.mark.timeout(300)
    def test_its_client_submits_lists_filters_pauses_cancels_and_retries(root):
        from harbor import Harbor
        from harbor.client import APIError

        ctx = context(root)
        make_task(root.parent)
        make_task(root.parent, "slow", solution="sleep 100")
        key = token(root, "harbor", "operate")
        with (
            serving(root, "--auth", "token", token=key, env=SUPPORT) as server,
            Harbor(f"{server.url}/harbor", api_key=key) as client,
        ):
            asked = config(root, "oracle", "nop")
            assert client.jobs.submit(config=asked, dry_run=True).n_trials == 2
            made = client.jobs.submit(config=asked, idempotency_key="once").job_id
            assert client.jobs.submit(config=asked, idempotency_key="once").job_id == made
            wait_for(lambda: client.jobs.get(made).state == "finished", "the job")
            job = client.jobs.get(made)
            assert (job.rollouts.n_finished, job.config.job_name) == (2, "nightly")
            found = client.rollouts.list(job_ids=[made])
            assert sorted((r.agent.name, r.rewards["reward"]) for r in found.items) == [("nop", 0), ("oracle", 1)]
            (nop,) = client.rollouts.list(job_ids=[made], agent_name=["nop"]).items
            detail = client.rollouts.get(nop.id)
            assert detail.result.verifier_result.rewards == {"reward": 0}
            assert client.rollouts.retry(nop.id).rollout_id == nop.id
            wait_for(lambda: idle(ctx), "the retry")
            assert client.rollouts.get(nop.id).result.trial_name != detail.result.trial_name
            slow = config(root, "oracle") | {"tasks": [{"path": str(root.parent / "slow")}], "job_name": "slow"}
            live = client.jobs.submit(config=slow).job_id
            wait_for(lambda: client.jobs.get(live).state == "running", "the slow one")
            assert [job.name for job in client.jobs.list(state="running").items] == ["slow"]
            assert [job.name for job in client.jobs.list(q="NIGHT", sort="name").items] == ["nightly"]
            page = client.jobs.list(page_size=1)
            assert (page.total, [job.name for job in page.items]) == (2, ["slow"])
            assert [job.name for job in client.jobs.list(page_size=1, page_token=page.next_page_token).items] == [
                "nightly"
            ]
            client.jobs.pause(live)
            client.jobs.resume(live)
            client.jobs.cancel(live)
            wait_for(lambda: client.jobs.get(live).state in ("cancelled", "finished"), "its end")
            with pytest.raises(APIError) as refused:
                client.jobs.get(uuid.uuid4())
            assert (refused.value.status_code, "there is no job" in refused.value.message) == (404, True)
            wait_for(lambda: idle(ctx), "the end")
        assert "nightly" in program(root, "ls").stdout
