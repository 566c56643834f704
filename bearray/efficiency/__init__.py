"""What objectives and decoders cost: timing in interleaved rounds, passes as counted, peak memory, energy.

The measuring core (`core`, `steps`, `decoding` and what they use) is plain PyTorch and runs in any process;
`workers` runs the same core on Ray Train workers and in a Ray Data actor.
"""
