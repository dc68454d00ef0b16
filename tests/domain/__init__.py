"""Tests of this room: words and judgement."""
