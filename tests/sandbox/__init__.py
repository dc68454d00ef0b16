"""Tests of this room: the embedded world itself."""
