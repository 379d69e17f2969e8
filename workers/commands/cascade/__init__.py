"""``roadstream cascade``: what cascades there are, what one says, and what is wrong with it."""

from roadstream.workers.commands.cascade.app import cascade

__all__ = ["cascade"]
