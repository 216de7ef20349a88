"""What a run shows and leaves behind: words, pictures, folders."""
