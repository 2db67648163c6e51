"""What a person reads: tables, sentences and pictures."""
