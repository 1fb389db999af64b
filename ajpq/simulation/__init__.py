"""What a compressed network answers: arithmetic of its codes, and what it is calibrated with."""
