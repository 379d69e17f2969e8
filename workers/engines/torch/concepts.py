"""What a list of concepts adds to a member's settings, as far as its family can use it."""

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.bounds import MOST_TAGS
from roadstream.schemas.settings.concepts import Concepts, load_concepts
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.family import Family


def concepts_of(cascade: Cascade, member: Member) -> Concepts | None:
    """Return the list that a member's settings name, if they name one.

    Raises:
        ConfigError: It is not there, or is none.
    """
    assert isinstance(member.settings, TorchSettings)
    if (name := member.settings.concepts) is None:
        return None
    where = f"{cascade.name}: member {member.name}: settings.concepts"
    return load_concepts(name, cascade.folder, where, cascade.snapshot.files)


def with_concepts(
    kind: type[Family], checkpoint: Checkpoint, settings: TorchSettings, concepts: Concepts | None
) -> TorchSettings:
    """Return settings with what a list adds to them.

    Raises:
        ConfigError: The family takes no texts, or gives no tags and is asked for some; or these
            are too many.
    """
    if concepts is not None:
        if not kind.takes_concepts:
            raise checkpoint.problem("concepts", "nothing, as it takes no texts", concepts.name)
        settings = settings.with_concepts(concepts, others=kind.takes_others)
    if settings.tags and not kind.gives_tags:
        raise checkpoint.problem("tags", "nothing, as it gives none", ", ".join(settings.tags))
    if len(settings.tags) > MOST_TAGS:
        expected = f"at most {MOST_TAGS} with those of the concepts"
        raise checkpoint.problem("tags", expected, f"{len(settings.tags)}")
    return settings
