"""Renderers: data sets drawn from their factors, in the likeness of the published ones."""
