"""Tests of this room: documents, packaging and benchmarks."""
