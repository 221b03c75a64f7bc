"""The model: everything a Hub repository of ours receives, importing only torch, transformers and each other."""
