"""Images: folders, lists and sets of one size; decoded, cached, augmented; with masks."""
