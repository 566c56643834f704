"""Every table and figure of the BEAR paper (arXiv 2601.22925) from one command: what each needs, run once,
and a document that holds ours beside theirs."""
