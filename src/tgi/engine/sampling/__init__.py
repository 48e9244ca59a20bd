"""The parts of `engine.sampler`: random numbers, ranking, processors, warpers, log-probabilities."""
