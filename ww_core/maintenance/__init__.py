"""Background work on the stores: embedding what is pending, mending, comparing, erasing."""
