"""Tests of this room: settings, daemon and log."""
