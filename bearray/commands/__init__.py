"""One typed function a command; `bearray.cli` turns them into the command line."""
