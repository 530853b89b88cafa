"""Reports the progress of a run to the terminal and to files, and follows a run from its files."""
