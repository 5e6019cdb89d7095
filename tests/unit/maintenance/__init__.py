"""Background work on the stores."""
