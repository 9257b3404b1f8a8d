"""Many runs from one command: the pool that forks their processes, and the run that stands for all of them."""
