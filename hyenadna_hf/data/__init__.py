"""Load sequences and labels from files, from the Hub, and from the bundled data set."""
