"""The data models of the package, their schemas, and the file names of products."""
