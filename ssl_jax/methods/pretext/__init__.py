"""What several pretext tasks share. A package, so that `methods.known()` does not take it for a method."""
