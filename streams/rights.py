"""What somebody may do on a log: an operation on a topic, on a group or on the cluster."""

from typing import Literal, NamedTuple

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS", "IDEMPOTENT_WRITE"]
"""As Kafka names them. READ and WRITE include DESCRIBE."""

Resource = Literal["topic", "group", "cluster"]


class Right(NamedTuple):
    """A right that a client has or lacks."""

    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        """Say it as Kafka's own messages and ``kafka-acls`` do."""
        return f"{self.operation} on {self.resource} {self.name}".rstrip()
