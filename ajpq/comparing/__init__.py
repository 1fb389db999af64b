"""Several searchers on one problem at one cost, and what is said of them."""
