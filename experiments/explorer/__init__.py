"""The interactive explorer of one trained model: what it shows, its images in little space, its page."""
