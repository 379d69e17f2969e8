"""Which rights a command needs on a cluster with ACLs, by its cascade."""

from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.topics import tier_group
from roadstream.streams.log import Right
from roadstream.workers.service.access.rights import to_work
from tests.kits.builders import cascade, tier


def test_a_worker_may_ask_who_works_for_the_tiers_that_its_routes_name() -> None:
    around = [Route(to="exit", tiers_down=["three"])]
    chain = cascade(tier("one", routes=around), tier("two"), tier("three"))

    asked = {right.name for right in to_work(chain, ["one"]) if right.operation == "DESCRIBE"}

    assert {tier_group("two"), tier_group("three")} <= asked
    assert Right("DESCRIBE", "group", tier_group("three")) not in to_work(cascade(), ["one"])
