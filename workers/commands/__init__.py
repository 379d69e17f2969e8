"""The subcommands of ``roadstream``, imported when they are called."""
