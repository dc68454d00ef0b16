"""The books: journal, closings, statements, usage and forecast, reckoned from what is stored. Touches nothing."""
