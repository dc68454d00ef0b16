"""Tests of this room: keys."""
