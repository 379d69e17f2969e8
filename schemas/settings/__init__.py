"""Typed settings of the engines, as the cascade file gives them under ``settings``."""
