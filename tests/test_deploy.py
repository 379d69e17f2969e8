"""The container files agree with the product: services run commands and options that exist.

No engine runs them here; this is what can be known without one.
"""

import re
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.workers.cli import app
from roadstream.workers.commands.common import member_name
from roadstream.workers.observe.addresses import parse_address
from roadstream.workers.service.lifecycle import DRAIN_TIMEOUT, LAST_RESORT

REPOSITORY = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
OURS = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service["image"] == "roadstream"
}


@pytest.mark.parametrize("name", sorted(set(OURS) - {"tools"}))
def test_service_command_is_one_the_command_line_accepts(name: str) -> None:
    command, bound, _ = app.parse_args(OURS[name]["command"], exit_on_error=False)
    assert callable(command)
    if name in load_cascade("lite").tier_names:
        assert bound.arguments["tier"] == [name]


@pytest.mark.parametrize("name", sorted(set(OURS) - {"topics", "tools"}))
def test_service_that_serves_has_its_metrics_its_state_and_time_to_drain(name: str) -> None:
    service = OURS[name]
    address = parse_address(service["environment"]["ROADSTREAM_METRICS"])
    assert [str(address.port)] == service["expose"]
    assert "ports" not in service  # nobody outside the network may see them
    assert address.host == "0.0.0.0"
    (volume,) = service["volumes"]
    folder = re.search(r"ROADSTREAM_STATE=(\S+)", DOCKERFILE)
    assert folder is not None
    assert volume == f"state:{folder[1]}"
    assert f"VOLUME {folder[1]}" in DOCKERFILE
    assert int(service["stop_grace_period"].removesuffix("s")) >= DRAIN_TIMEOUT + LAST_RESORT + 5
    assert "--drain-timeout" not in service["command"]
    assert service["init"] is True  # SIGTERM ends a process that is still starting
    assert not {"hostname", "container_name", "network_mode"} & set(service)  # may be scaled
    member = service["command"][service["command"].index("--member") + 1]
    assert member_name(member) == socket.gethostname()


def test_every_tier_of_the_default_cascade_has_a_service() -> None:
    assert set(load_cascade("lite").tier_names) <= set(OURS)


def test_services_wait_for_topics_and_topics_for_a_healthy_kafka() -> None:
    for name in set(OURS) - {"topics", "tools"}:
        assert OURS[name]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        assert "healthcheck" in OURS[name]
    assert OURS["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert "healthcheck" in COMPOSE["services"]["kafka"]


def test_kafka_takes_the_records_that_the_product_sends() -> None:
    from roadstream.streams.kafka.settings import KafkaSettings

    environment = COMPOSE["services"]["kafka"]["environment"]
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] >= KafkaSettings().max_record_bytes


def test_image_copies_every_room_that_the_wheel_packs() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    packed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    assert {path.partition("/")[0] for path in packed} == copied
