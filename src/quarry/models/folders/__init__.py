"""What the files of a model say about how texts are fed to it."""
