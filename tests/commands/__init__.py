"""Tests of this room: what a person runs."""
