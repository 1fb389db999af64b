"""A network as operators and channels: traced from a module, analysed, executed."""
