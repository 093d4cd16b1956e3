"""What things cost, measured side by side in one process: ``python -m tutorial_lib benchmark gradients``."""
