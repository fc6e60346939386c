"""The stages in order, over a run directory; and the two halves that commands use alone."""
