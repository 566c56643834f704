"""Ray Tune and Optuna: sweeps over lambda and xi, with the rival objectives trained beside them."""
