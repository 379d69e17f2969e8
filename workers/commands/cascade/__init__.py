"""``roadstream cascade``: what cascades there are, what one says, and what is wrong with it."""

from roadstream.workers.commands.cascade import roll as _roll
from roadstream.workers.commands.cascade.app import cascade

del _roll

__all__ = ["cascade"]
