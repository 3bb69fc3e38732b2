"""A device, an ensemble and its traffic on a virtual clock."""
