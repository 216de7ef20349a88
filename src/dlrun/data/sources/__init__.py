"""Find, download, verify and unpack the files of data sets."""
