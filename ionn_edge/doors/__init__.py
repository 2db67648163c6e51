"""Who may come in, how fast, and what is said to those who may not."""
