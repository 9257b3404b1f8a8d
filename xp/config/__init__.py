"""From the yaml files and the command line to plain values, with Hydra; whatever is wrong with them is one line."""
