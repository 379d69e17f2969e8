"""Processes that misbehave on command, for the fault campaign."""
