"""Tests of this room: where everything is kept."""
