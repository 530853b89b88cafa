"""Code that several pretext tasks share. It is a package, so `methods.known()` does not list it."""
