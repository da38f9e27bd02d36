"""A sweep: trials with other values of options, the choice of one by its validation rows, and the page of all."""
