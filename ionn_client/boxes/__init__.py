"""Which boxes there are, and who they are: finding, pairing, knowing, asking them."""
