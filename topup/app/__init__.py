"""The program around the flow: settings, assembly, daemon, log."""
