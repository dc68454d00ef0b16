"""Tests of this room: APIs and ways to pay."""
