"""How the weights that ship with Roadstream are trained and measured; not part of the wheel."""
