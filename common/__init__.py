"""What every part of the program needs and what knows no part of it: paths, the command line, safe files, processes."""
