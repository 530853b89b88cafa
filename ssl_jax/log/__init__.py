"""What a run reports while it works, and how it is followed from its folder."""
