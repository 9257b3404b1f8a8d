"""A training, from its recipe to what one process does of one optimizer step; a backend turns the crank."""
