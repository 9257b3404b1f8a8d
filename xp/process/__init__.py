"""The processes of a run: which there are, what each works on, how they watch each other, what signals end them."""
