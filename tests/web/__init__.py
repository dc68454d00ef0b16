"""Tests of this room: what is given over HTTP to whoever looks."""
