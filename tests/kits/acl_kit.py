"""A broker that wants a password and grants nothing, and the rights that a test gives its users."""

import re
import shlex
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from roadstream.workers.broker.cluster import BrokerSettings
from roadstream.workers.observe.addresses import free_ports
from tests.kits.kafka_fixture import new_brokers

PASSWORD = "correct-horse-7413"
USERS = (
    "admin", "producer", "worker", "consensus", "reader", "auditor", "clerk", "operator", "nobody"
)  # fmt: skip

_ALLOW = 3
_LITERAL, _PREFIXED = 3, 4
_RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
_OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10, "IdempotentWrite": 12
}  # fmt: skip


class Acl(NamedTuple):
    """One right of one user."""

    user: str
    operation: str
    resource: str
    name: str
    prefixed: bool = False


class Guarded(NamedTuple):
    """A broker with an authorizer: where anybody may do all, and where users have rights."""

    open: str
    sasl: str


@asynccontextmanager
async def guarded_broker() -> AsyncIterator[Guarded]:
    """Run a broker with KRaft's ``StandardAuthorizer``; only ``open`` is without it."""
    [sasl] = free_ports("127.0.0.1", 1)
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in USERS)
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    places = f"PLAINTEXT://{{host}}:{{port}},SASL://{{host}}:{sasl}"
    extra = {
        "listeners": f"{places},CONTROLLER://{{host}}:{{controller_port}}",
        "advertised.listeners": places,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "SASL:SASL_PLAINTEXT",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": f"{plain} {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    async with new_brokers(BrokerSettings(extra=extra)) as cluster:
        yield Guarded(cluster.bootstrap_servers, f"127.0.0.1:{sasl}")


def settings_file(folder: Path, user: str) -> Path:
    """Write the settings of a user; the password comes from the environment."""
    file = folder / f"{user}.toml"
    file.write_text(
        f'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\n'
        f'sasl_username = "{user}"\nsession_timeout = 6.0\nstall_timeout = 2.0\n'
    )
    return file


def documented(page: str) -> list[Acl]:
    """Return what the ``kafka-acls`` commands of a page grant."""
    lines = re.findall(r"^kafka-acls .*", page.replace("\\\n", " "), re.MULTILINE)
    return [acl for line in lines for acl in _granted(shlex.split(line))]


def _granted(words: list[str]) -> Iterator[Acl]:
    options: dict[str, list[str]] = {}
    flags = {"--add", "--cluster", "kafka-acls"}
    rest = iter(word for word in words if word not in flags)
    for option in rest:
        options.setdefault(option, []).append(next(rest))
    prefixed = options.get("--resource-pattern-type", ["literal"]) == ["prefixed"]
    for principal in options["--allow-principal"]:
        for operation in options["--operation"]:
            for resource in ("topic", "group"):
                for name in options.get(f"--{resource}", []):
                    user = principal.removeprefix("User:")
                    yield Acl(user, operation, resource, name, prefixed)


async def grant(servers: str, acls: Collection[Acl]) -> None:
    """Give rights."""
    async with _client(servers) as client:
        for acl in acls:
            answer = await client._send_to_controller(_request(CreateAclsRequest, acl))
            assert [code for code, _ in answer.creation_responses] == [0], answer


async def take(servers: str, acls: Collection[Acl]) -> None:
    """Take rights away that somebody has."""
    async with _client(servers) as client:
        for acl in acls:
            answer = await client._send_to_controller(_request(DeleteAclsRequest, acl))
            assert [len(found) for _, _, found in answer.filter_responses] == [1], (acl, answer)


def _request(kind: Any, acl: Acl) -> Any:
    pattern = _PREFIXED if acl.prefixed else _LITERAL
    return kind(
        _RESOURCES[acl.resource],
        acl.name,
        pattern,
        f"User:{acl.user}",
        "*",
        _OPERATIONS[acl.operation],
        _ALLOW,
    )


@asynccontextmanager
async def _client(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()
