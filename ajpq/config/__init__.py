"""What a run is asked to do: validated settings, and the YAML files that they come from."""
