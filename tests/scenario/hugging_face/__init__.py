"""Models from configurations of Hugging Face."""
