"""What the programs are on an accelerator that is not there: `python -m experiments.lowering`."""
