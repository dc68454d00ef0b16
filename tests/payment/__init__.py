"""Tests of this room: passes and the life of one top-up."""
