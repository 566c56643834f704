"""The document: read the storage, put tables, figures and findings together, write them in one go."""
