"""Code of the model, copied to Hub repositories: it imports what transformers installs, and its own files."""
