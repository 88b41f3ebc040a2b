"""From a placed track to the pictures of the result: the table of generators, and the loop that asks one of them."""
