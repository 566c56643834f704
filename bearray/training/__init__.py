"""The Ray Train worker loop, its engines (DeepSpeed, DDP) and checkpoints."""
