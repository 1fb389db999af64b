"""Run folders: what a search, a method or a replay leaves behind, and how it continues."""
