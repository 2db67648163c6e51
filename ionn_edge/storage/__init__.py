"""What the box keeps of whom, on disk and across crashes."""
