"""Video files in and out: which part of a file is meant, how it is decoded, and how films with sound are written."""
