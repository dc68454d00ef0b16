"""Tests of this room: the wall."""
