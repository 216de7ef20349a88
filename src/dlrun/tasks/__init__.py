"""What there is to learn, and how from one batch."""
