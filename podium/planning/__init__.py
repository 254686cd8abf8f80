"""What a run would need and how fast it can be, found out without a chip: `podium plan`."""
