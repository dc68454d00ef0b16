"""Tests of this room: journal, statements and forecasts."""
