"""`tgi inspect`: what a checkpoint is, and how this server would compute it, told without loading a weight."""
