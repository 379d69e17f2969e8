"""Decides for every dashcam or phone picture whether there is roadwork in it."""
