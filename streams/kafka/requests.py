"""Requests to Kafka in versions that aiokafka does not know."""

from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Schema


def many(name: str, *fields: Any) -> tuple[str, Array]:
    """Return a field that is a list: of one type, or of records of these fields."""
    return name, Array(*fields)


class VersionedRequest(Request[RequestStruct]):  # type: ignore[misc]  # aiokafka is untyped
    """A request in one version.

    A subclass says its key, its version, and the schemas of the question and of the answer; those
    of flexible versions end with tags.

    Args:
        fields: Of the question.
    """

    API_KEY = -1  # of none; each subclass has its own

    def __init_subclass__(
        cls, *, key: int, version: int, question: Schema, answer: Schema, flexible: bool = False
    ) -> None:
        cls.API_KEY = key
        super().__init_subclass__()
        names = {"API_KEY": key, "API_VERSION": version, "FLEXIBLE_VERSION": flexible}
        read_as = type("Answer", (Response,), {**names, "SCHEMA": answer})
        asked = {**names, "SCHEMA": question, "RESPONSE_TYPE": read_as}
        cls._CLASSES = (type("Question", (RequestStruct,), asked),)

    def __init__(self, *fields: object) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class(*self._fields)
