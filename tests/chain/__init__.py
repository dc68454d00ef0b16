"""Tests of this room: what the chain says."""
