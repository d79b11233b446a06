"""Server mode from docker-compose.yml's own commands: started in their order, healthy, at work, killed, stopped in time."""

import time

import httpx
import pytest
import yaml

from tests.journeys.deployment import ROOT
from tests.journeys.services import OURS, Services

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]


@pytest.fixture
def services(tmp_path):
    made = Services(tmp_path / "data")
    yield made
    made.remove()


def until(question, *, within, why):
    deadline = time.monotonic() + within
    while not (answer := question()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)
    return answer


def test_the_file_says_for_each_service_how_it_is_watched_stopped_and_started_again():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name in OURS:
        service = compose["services"][name]
        assert service["restart"] == "unless-stopped"
        assert service["stop_grace_period"] == "30s"
        assert service["healthcheck"]["test"]
        assert service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    migrating = [name for name, service in compose["services"].items() if "migrate" in str(service.get("command"))]
    assert migrating == ["migrate"]
    words = " ".join(compose["services"][name]["command"] for name in OURS).split()
    queues = ",".join(word.removeprefix("--queues=") for word in words if word.startswith("--queues="))
    assert sorted(queues.split(",")) == ["compute", "intake", "sync", "urgent"]
    assert "USER rollcall" in (ROOT / "Dockerfile").read_text()
    example = (ROOT / ".env.example").read_text()
    assert all(
        f"\n{name}=" in example for name in ("POSTGRES_PASSWORD", "SECRET_KEY", "CREDENTIALS_KEYS", "PUBLIC_URL")
    )


def test_each_command_runs_in_its_own_environment_and_is_healthy_at_work_killed_and_stopped_within_its_grace(services):
    services.up()
    until(lambda: services.get("/health/beat").json()["beating"], within=60, why=services.log)
    ready = services.get("/health/ready").json()
    assert (ready["ready"], ready["degraded"]) == (True, [])

    site, _, key = services.manage("create_api_key", "shop").stdout.strip().partition(":")
    shop = httpx.Client(base_url=services.url, auth=(site, key), timeout=10)

    def buy(first, many):
        for n in range(first, first + many):
            assert shop.put(f"/api/v1/customers/c{n}", json={"email": f"c{n}@example.com"}).status_code == 200
            event = {"name": "purchase", "id": f"e{n}", "data": {"value": n}}
            assert shop.post(f"/api/v1/customers/c{n}/events", json=event).status_code == 200

    def kept():
        return services.query("SELECT count(*) FROM audiences_changelog WHERE kind = 'event'")[0][0]

    buy(0, 20)
    assert kept() == 20
    for name in ("worker", "worker-urgent", "beat"):
        services.kill(name)
    buy(20, 20)  # nobody works, and everything is taken in
    assert kept() == 40
    for name in ("worker", "worker-urgent", "beat"):
        services.start(name)
    for name in OURS:
        until(lambda name=name: services.healthy(name), within=60, why=services.log)
    again = "SELECT count(*) FROM audiences_job WHERE task = 'audiences.canary' AND finished_at > now() - interval '20 seconds'"
    time.sleep(20)
    # The row of a canary that a killed worker had in hand comes back with its lease.
    until(lambda: services.query(again)[0][0] == 4, within=60, why=services.log)

    for name in OURS:
        code, seconds = services.stop_service(name)
        assert (code, seconds < 30) == (0, True), (name, code, seconds)
    assert services.query("SELECT count(*) FROM audiences_job WHERE lease_until IS NOT NULL")[0][0] == 0
