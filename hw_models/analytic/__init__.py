"""Cost models that are formulas: published, vectorised over policies, bit-flexible."""
