"""The published tables, run again with the figures of the paper beside ours."""
